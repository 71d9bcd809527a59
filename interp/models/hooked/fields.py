"""Every field of TransformerLens's config: what it means for the computation here.

A field is read (:mod:`.convert`), or it changes nothing, or it changes the computation in a way that is
not written here: then the model is refused with the reason. A field that a later TransformerLens
adds is in no list, and is refused as soon as it is set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from interp.errors import ModelError
from interp.models.hooked.parts import ACTIVATIONS

__all__ = ["DEFAULTS", "SIZES", "described", "refuse"]

#: Fields that are read, with TransformerLens's defaults (as plain mappings may leave them out).
DEFAULTS: Final[dict[str, Any]] = {
    "d_vocab": -1, "d_vocab_out": -1, "n_heads": -1, "d_mlp": None, "n_key_value_heads": None,
    "act_fn": "relu", "gated_mlp": False, "attn_only": False,
    "normalization_type": "LN", "final_rms": False, "eps": 1e-5, "use_qk_norm": False,
    "use_normalization_before_and_after": False,
    "positional_embedding_type": "standard", "rotary_dim": None, "rotary_base": 10000,
    "rotary_base_local": None, "rotary_scaling_factor": 1.0, "rotary_adjacent_pairs": False,
    "parallel_attn_mlp": False, "attention_dir": "causal", "use_attn_scale": True,
    "attn_scale": -1.0, "scale_attn_by_inverse_layer_idx": False, "attn_scores_soft_cap": -1.0,
    "output_logits_soft_cap": -1.0, "use_local_attn": False, "attn_types": None,
    "window_size": None, "model_name": "custom",
}  # fmt: skip
#: Fields that every config has.
SIZES: Final = ("d_model", "d_head", "n_layers", "n_ctx")
#: Fields that change nothing that is computed: hooks, initialisation, names, tokens, the past.
_IDLE: Final = frozenset({
    "use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in", "use_hook_tokens",
    "ungroup_grouped_query_attention",
    "init_mode", "init_weights", "initializer_range", "seed", "n_params", "device", "dtype",
    "from_checkpoint", "checkpoint_index", "checkpoint_label_type", "checkpoint_value",
    "tokenizer_name", "tokenizer_prepends_bos", "default_prepend_bos", "trust_remote_code",
    "tie_word_embeddings", "layer_norm_folding", "uses_rms_norm", "experts_per_token",
    "norm_topk_prob", "train_seq_length", "original_architecture", "quantization_method",
    "NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_by_parts_factor",
    "NTK_original_ctx_len", "yarn_factor", "yarn_attention_factor", "yarn_beta_fast",
    "yarn_beta_slow", "yarn_original_max_position_embeddings", "yarn_truncate",
    "yarn_global_attn_only",
})  # fmt: skip
_OLMO: Final = ("OlmoeForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM")
_POSITIONS: Final = {
    "shortformer": "positions are added to what makes q and k but not to what makes v, so "
    "attention reads two tensors and 'attn.input' is neither",
    "alibi": "ALiBi's biases are not written here",
    "relative_positional_bias": "biases by relative position are not written here",
}


def _set(value: Any) -> bool:
    return value not in (None, False, 0)


#: Fields that are refused, with when and why.
_REFUSED: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "num_experts": (_set, "mixtures of experts are not written here"),
    "load_in_4bit": (_set, "quantised weights cannot be viewed"),
    "post_embedding_ln": (_set, "a norm behind the embedding is not written here"),
    "use_attention_sinks": (_set, "with sinks the rows of a pattern do not sum to one"),
    "use_logn_attn": (_set, "scaling queries by their position is not written here"),
    "use_dynamic_ntk_rope": (_set, "rotary bases that depend on the length are not written here"),
    "use_NTK_by_parts_rope": (_set, "NTK-by-parts rotary frequencies are not written here"),
    "use_yarn_rope": (_set, "YaRN's rotary frequencies are not written here"),
    "clip_qkv": (lambda v: v is not None, "clipped q, k and v are not written here"),
    "relative_attention_max_distance": (_set, _POSITIONS["relative_positional_bias"]),
    "relative_attention_num_buckets": (_set, _POSITIONS["relative_positional_bias"]),
    "decoder_start_token_id": (lambda v: v is not None, "encoder-decoder models are not written here"),
    "n_devices": (lambda v: v != 1, "its layers lie on several devices: build it on one"),
}  # fmt: skip


def described(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say what is computed, without those that a bridge takes from elsewhere."""
    known = {*DEFAULTS, *SIZES, *_REFUSED, "original_architecture"}
    return {**DEFAULTS, **{name: value for name, value in cfg.items() if name in known}}


def refuse(cfg: Mapping[str, Any]) -> None:
    """Raise for a config whose computation is not written here.

    Raises:
        ModelError: the field, its value and the reason.
    """
    for name in (*SIZES, "d_vocab"):
        if not isinstance(cfg.get(name), int) or cfg[name] < 1:
            raise ModelError(f"cfg.{name}={cfg.get(name)!r}; expected a positive number.")
    for name, value in cfg.items():
        condition, reason = _REFUSED.get(name, (None, ""))
        if condition is not None and condition(value):
            raise _error(name, value, reason)
        if not (condition or name in DEFAULTS or name in SIZES or name in _IDLE) and _set(value):
            raise _error(name, value, "this field is not known, nor what it changes")
    if cfg.get("original_architecture") in _OLMO:
        raise _error("original_architecture", cfg["original_architecture"],
                     "its norms on whole q and k are not written here")  # fmt: skip
    given = {**DEFAULTS, **cfg}
    allowed = {
        "positional_embedding_type": ("standard", "rotary"),
        "normalization_type": (None, "LN", "LNPre", "RMS", "RMSPre"),
        "attention_dir": ("causal", "bidirectional"),
    }
    if not given["attn_only"]:
        allowed["act_fn"] = tuple(ACTIVATIONS)
    for name, values in allowed.items():
        if given[name] not in values:
            more = _POSITIONS.get(str(given[name]), "")
            known = ", ".join(map(repr, values))
            raise _error(name, given[name], f"{more}; expected one of {known}".removeprefix("; "))
    _refuse_pairs(given)


def _refuse_pairs(given: Mapping[str, Any]) -> None:
    """Values that are fine alone, and not together."""
    kind = given["normalization_type"]
    if given["gated_mlp"] and str(given["act_fn"]).endswith("_ln") and not given["attn_only"]:
        raise _error(
            "act_fn", given["act_fn"], "a gated MLP with a norm inside leaves its gate out"
        )
    if given["use_normalization_before_and_after"] and kind in ("LN", "LNPre"):
        raise _error("use_normalization_before_and_after", True,
                     f"TransformerLens has no such norms beside normalization_type={kind!r}")  # fmt: skip
    if given["use_local_attn"] and given["attention_dir"] == "bidirectional":
        raise _error("use_local_attn", True,
                     "TransformerLens leaves the window out where attention is bidirectional")  # fmt: skip
    if given["parallel_attn_mlp"] and given["attn_only"]:
        raise _error("parallel_attn_mlp", True, "a block without MLP has nothing in parallel")


def _error(name: str, value: Any, reason: str) -> ModelError:
    return ModelError(
        f"this TransformerLens model has cfg.{name}={value!r}, which is refused: {reason}. If it was "
        "made from a Hugging Face checkpoint, give interp.load that checkpoint."
    )
