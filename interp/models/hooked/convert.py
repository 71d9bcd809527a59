"""From TransformerLens's config and weights to a model of our own.

Every weight is copied, once: the model is as the TransformerLens one stood, and what happens to that
one afterwards does not reach it. (Most layouts would allow views, but q, k and v would not, and a
model half of which follows another is worse than either.) TransformerLens itself is never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from interp.errors import ModelError
from interp.models.hooked.config import HookedConfig
from interp.models.hooked.fields import DEFAULTS, refuse
from interp.models.hooked.modeling import HookedForCausalLM

__all__ = ["config_of", "from_weights"]

#: What a state dict holds beside weights.
_BUFFERS: Final = ("mask", "IGNORE", "rotary_sin", "rotary_cos", "alibi")
_DTYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def from_weights(
    cfg: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
) -> HookedForCausalLM:
    """A model from the fields of a ``HookedTransformerConfig`` and a ``state_dict`` in its names.

    Args:
        cfg: fields by name; those left out have TransformerLens's defaults.
        weights: ``blocks.0.attn.W_Q`` ``[head, d_model, d_head]`` and so on. Biases that are left
            out are zeros.
        dtype: of the model; None: that of ``embed.W_E``.

    Raises:
        ModelError: the config computes what is not written here, or weights are missing, have
            other shapes or are not read by anything.
    """
    refuse(cfg)
    left = {name: value for name, value in weights.items()
            if name.rpartition(".")[2] not in _BUFFERS}  # fmt: skip
    if "embed.W_E" not in left:
        raise ModelError("the weights lack 'embed.W_E'; expected TransformerLens's names.")
    source = left["embed.W_E"]
    config = config_of(cfg, float64=_float64(weights, dtype or source.dtype))
    model = HookedForCausalLM._from_config(
        config,
        dtype=dtype or source.dtype,
        attn_implementation="sdpa" if config.attention_softcap is None else "eager",
    ).to(source.device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own, value = _take(left, name)
            if value is None:
                if not own.rpartition(".")[2].startswith(("b_", "_b_")):
                    raise ModelError(f"the weights lack {own!r} {list(parameter.shape)}.")
                parameter.zero_()
            elif value.shape != parameter.shape or not value.is_floating_point():
                raise ModelError(
                    f"{own!r} holds {value.dtype} that do not fit {list(parameter.shape)}: the "
                    "config is of another model, or the weights are quantised."
                )
            else:
                parameter.copy_(value)
    _none_left(left, config)
    return model.eval()


def config_of(cfg: Mapping[str, Any], *, float64: bool = False) -> HookedConfig:
    """The config; :func:`.fields.refuse` has seen the fields.

    Args:
        float64: whether rotary angles are computed in float64, as TransformerLens does for
            models made in it.
    """
    given = {**DEFAULTS, **cfg}
    n, heads, d_head = given["n_layers"], given["n_heads"], given["d_head"]
    rotary = given["positional_embedding_type"] == "rotary"
    d_mlp = given["d_mlp"] or 4 * given["d_model"]
    local = given["use_local_attn"]
    out = given["d_vocab_out"]
    return HookedConfig(
        vocab_size=given["d_vocab"],
        output_vocab_size=given["d_vocab"] if out == -1 else out,
        hidden_size=given["d_model"],
        num_hidden_layers=n,
        num_attention_heads=given["d_model"] // d_head if heads == -1 else heads,
        num_key_value_heads=given["n_key_value_heads"],
        head_dim=d_head,
        intermediate_size=None if given["attn_only"] else d_mlp,
        max_position_embeddings=given["n_ctx"],
        hidden_act=given["act_fn"] or "relu",
        gated_mlp=bool(given["gated_mlp"]),
        normalization=given["normalization_type"],
        final_rms=bool(given["final_rms"]),
        norm_eps=float(given["eps"]),
        norm_after=given["use_normalization_before_and_after"] and given["normalization_type"] is not None,
        qk_norm=bool(given["use_qk_norm"]),
        position_embedding=given["positional_embedding_type"],
        rotary_dim=(given["rotary_dim"] or d_head) if rotary else None,
        rotary_base=float(given["rotary_base"]),
        rotary_base_local=given["rotary_base_local"],
        rotary_factor=float(given["rotary_scaling_factor"]),
        rotary_adjacent_pairs=bool(given["rotary_adjacent_pairs"]),
        rotary_float64=float64,
        parallel=bool(given["parallel_attn_mlp"]),
        is_causal=given["attention_dir"] == "causal",
        attention_divisors=[_divisor(given, layer) for layer in range(n)],
        attention_softcap=_cap(given["attn_scores_soft_cap"]),
        final_logit_softcapping=_cap(given["output_logits_soft_cap"]),
        layer_types=["sliding_attention" if kind == "local" else "full_attention"
                     for kind in given["attn_types"][:n]] if local else None,
        sliding_window=given["window_size"] if local else None,
    )  # fmt: skip


def _divisor(given: Mapping[str, Any], layer: int) -> float:
    scale = given["attn_scale"]
    scale = given["d_head"] ** 0.5 if scale == -1.0 else float(scale)
    scale = scale if given["use_attn_scale"] else 1.0
    return scale * (layer + 1) if given["scale_attn_by_inverse_layer_idx"] else scale


def _cap(value: float | None) -> float | None:
    return float(value) if value is not None and value > 0 else None


def _float64(weights: Mapping[str, Tensor], dtype: torch.dtype) -> bool:
    """Whether the source's rotary angles were computed in float64.

    A float32 model that was cast to float64 later keeps its float32 angles.
    """
    table = weights.get("blocks.0.attn.rotary_sin")
    if dtype is not torch.float64 or table is None:
        return dtype is torch.float64
    return not torch.equal(table, table.float().to(table.dtype))


# -- names and layouts -----------------------------------------------------------------------

#: Our parameter's name and TransformerLens's, within a block's attention or MLP, or outside.
_OUTSIDE: Final = {
    "model.embed.weight": "embed.W_E", "model.pos_embed.weight": "pos_embed.W_pos",
    "model.ln_final.weight": "ln_final.w", "model.ln_final.bias": "ln_final.b",
    "lm_head.weight": "unembed.W_U", "lm_head.bias": "unembed.b_U",
}  # fmt: skip
_INSIDE: Final = {
    "attn.q.weight": "attn.W_Q", "attn.q.bias": "attn.b_Q",
    "attn.k.weight": "attn.W_K", "attn.k.bias": "attn.b_K",
    "attn.v.weight": "attn.W_V", "attn.v.bias": "attn.b_V",
    "attn.o.weight": "attn.W_O", "attn.o.bias": "attn.b_O",
    "attn.q_norm.weight": "attn.q_norm.w", "attn.k_norm.weight": "attn.k_norm.w",
    "mlp.up.weight": "mlp.W_in", "mlp.up.bias": "mlp.b_in", "mlp.gate.weight": "mlp.W_gate",
    "mlp.down.weight": "mlp.W_out", "mlp.down.bias": "mlp.b_out",
    "mlp.act.1.weight": "mlp.ln.w", "mlp.act.1.bias": "mlp.ln.b",
    **{f"{ln}.{ours}": f"{ln}.{theirs}" for ln in ("ln1", "ln2", "ln1_post", "ln2_post")
       for ours, theirs in (("weight", "w"), ("bias", "b"))},
}  # fmt: skip


def _take(left: dict[str, Tensor], name: str) -> tuple[str, Tensor | None]:
    """TransformerLens's name of one of our parameters, and its value in our layout."""
    if name in _OUTSIDE:
        own = _OUTSIDE[name]
        value = left.pop(own, None)
        return own, value.T if value is not None and own == "unembed.W_U" else value
    _, _, layer, inner = name.split(".", 3)
    part, _, last = _INSIDE[inner].rpartition(".")
    own = f"blocks.{layer}.{part}.{last}"
    if own not in left and f"blocks.{layer}.{part}._{last}" in left:  # by key-value head
        own = f"blocks.{layer}.{part}._{last}"
    value = left.pop(own, None)
    return own, None if value is None else _ours(value, last)


def _ours(value: Tensor, name: str) -> Tensor:
    """``x @ W`` by head or not, as a linear map's ``[out, in]``."""
    if name in ("W_Q", "W_K", "W_V") and value.dim() == 3:
        return value.transpose(1, 2).flatten(0, 1)
    if name == "W_O" and value.dim() == 3:
        return value.flatten(0, 1).T
    if name in ("b_Q", "b_K", "b_V"):
        return value.flatten()
    return value.T if name.startswith("W_") else value


def _none_left(left: Mapping[str, Tensor], config: HookedConfig) -> None:
    """Raise for weights that nothing here reads."""
    for name, value in left.items():
        product = config.gated_mlp and name.endswith("mlp.b_in")
        if product and not bool(value.any()):
            continue  # TransformerLens gives every gated MLP one, of zeros
        if product:
            raise ModelError(
                f"{name!r} is not zero, and in a gated MLP TransformerLens adds it to the product of "
                "gate and input, where no other family has a bias: it is refused."
            )
        raise ModelError(
            f"nothing in this config reads the weight {name!r} {list(value.shape)}, so the model "
            "would compute something else: it was changed after it was made."
        )
