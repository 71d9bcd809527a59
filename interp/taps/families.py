"""Which module plays which part: one row of data for each model family.

Paths are relative to a block (``ln1``), to its attention module (``qkv``,
``o``) or to its MLP (``up``, ``gate``, ``down``); ``embed``, ``pos_embed`` and
``ln_final`` are relative to the decoder. A new family is one row here and a
line in the parity tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

__all__ = ["FAMILIES", "REFUSED_FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """The names of a block's parts. The defaults are Llama's.

    Attributes:
        qkv: three projections, or one fused projection.
        layout: of a fused projection's output: ``"blocks"`` = all q, all k, all v;
            ``"heads"`` = the queries, k and v of key-value head 0, then of head 1, ...
        gate: the gate projection; None if the MLP is not gated; equal to ``up`` if both are
            fused in one projection (gate first).
        attn_norm, mlp_norm: norms on the *output* of the branch (post-norm families).
        rotary: whether positions rotate q and k; a string names the config flag.
        parallel: attention and MLP read the same residual; a string names the config flag.
        softmax_float32: whether eager attention softmaxes in float32 whatever the dtype.
        registry: whether attention goes through ``ALL_ATTENTION_FUNCTIONS``. If not, what it
            computes is seen at the torch functions that its own code calls.
        dropout: the module that the pattern passes right before it multiplies v, where own
            code has one; None if what the softmax returns multiplies v.
        adds_residual: whether the attention and MLP modules add the residual themselves, so
            that a branch is what ``o`` and ``down`` write.
        norm_offset: 1 where RMSNorm multiplies by ``1 + weight``.
        inplace_mlp_out: whether the block later adds to the MLP's output in place, so that a
            reader must be handed a copy.
        refused: points this family does not have, each with the reason.
        refused_if: more of them, for configs of which a condition holds.
        without_if: names that are None in models whose config a condition holds of.
    """

    attn: str = "self_attn"
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    layout: Literal["split", "blocks", "heads"] = "split"
    o: str = "o_proj"
    mlp: str | None = "mlp"
    up: str | None = "up_proj"
    gate: str | None = "gate_proj"
    down: str | None = "down_proj"
    ln1: str | None = "input_layernorm"
    ln2: str | None = "post_attention_layernorm"
    attn_norm: str | None = None
    mlp_norm: str | None = None
    embed: str = "embed_tokens"
    pos_embed: str | None = None
    ln_final: str = "norm"
    rotary: bool | str = True
    parallel: bool | str = False
    softmax_float32: bool = True
    registry: bool = True
    dropout: str | None = None
    adds_residual: bool = False
    norm_offset: int = 0
    inplace_mlp_out: bool = False
    window_from_end: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    refused_if: tuple[tuple[Callable[[Any], bool], Mapping[str, str]], ...] = ()
    without_if: tuple[tuple[Callable[[Any], bool], tuple[str, ...]], ...] = ()

    def of(self, config: Any) -> Family:
        """The family without the parts that models of this config do without."""
        parts = [names for holds, names in self.without_if if holds(config)]
        gone: Any = dict.fromkeys(name for names in parts for name in names)
        return replace(self, **gone) if gone else self


def _refuse(reason: str, *points: str) -> dict[str, str]:
    return dict.fromkeys(points, reason)


LLAMA: Final = Family()
GPT2: Final = Family(
    attn="attn", qkv=("c_attn",), layout="blocks", o="c_proj",
    up="c_fc", gate=None, down="c_proj", ln1="ln_1", ln2="ln_2",
    embed="wte", pos_embed="wpe", ln_final="ln_f", rotary=False, softmax_float32=False,
)  # fmt: skip
NEOX: Final = Family(
    attn="attention", qkv=("query_key_value",), layout="heads", o="dense",
    up="dense_h_to_4h", gate=None, down="dense_4h_to_h",
    embed="embed_in", ln_final="final_layer_norm", parallel="use_parallel_residual",
)  # fmt: skip
OPT: Final = Family(
    o="out_proj", mlp=None, up="fc1", gate=None, down="fc2",
    ln1="self_attn_layer_norm", ln2="final_layer_norm",
    pos_embed="embed_positions", ln_final="final_layer_norm", rotary=False,
)  # fmt: skip
PHI: Final = Family(
    o="dense", up="fc1", gate=None, down="fc2", ln2=None,
    ln_final="final_layernorm", parallel=True,
    refused=_refuse("attention and MLP share one norm, which is ln1", "ln2.scale", "ln2.normalized"),
)  # fmt: skip
PHI3: Final = Family(qkv=("qkv_proj",), layout="blocks", up="gate_up_proj", gate="gate_up_proj")
GEMMA: Final = Family(norm_offset=1)
GEMMA2: Final = Family(
    ln2="pre_feedforward_layernorm", attn_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm", norm_offset=1,
)  # fmt: skip
OLMO2: Final = Family(
    ln1=None, ln2=None, attn_norm="post_attention_layernorm", mlp_norm="post_feedforward_layernorm",
    refused=_refuse(
        "this family normalises what a branch writes, not what it reads",
        "ln1.scale", "ln1.normalized", "ln2.scale", "ln2.normalized",
    ),
)  # fmt: skip
MIXTRAL: Final = Family(
    up=None, gate=None, down=None,
    refused=_refuse(
        "this block is a mixture of experts: neurons belong to experts that are routed per "
        "token, so there is no [batch, pos, d_mlp] tensor",
        "mlp_pre", "mlp_post",
    ),
)  # fmt: skip
GPTJ: Final = Family(
    attn="attn", o="out_proj", up="fc_in", gate=None, down="fc_out", ln1="ln_1", ln2=None,
    embed="wte", ln_final="ln_f", parallel=True, registry=False, dropout="attn_dropout",
    refused=PHI.refused,
)  # fmt: skip
GPT_NEO: Final = Family(
    attn="attn.attention", o="out_proj", up="c_fc", gate=None, down="c_proj",
    ln1="ln_1", ln2="ln_2", embed="wte", pos_embed="wpe", ln_final="ln_f", rotary=False,
    registry=False, window_from_end=True, dropout="attn_dropout",
)  # fmt: skip
BLOOM: Final = Family(
    attn="self_attention", qkv=("query_key_value",), layout="heads", o="dense",
    up="dense_h_to_4h", gate=None, down="dense_4h_to_h", embed="word_embeddings_layernorm",
    ln_final="ln_f", rotary=False, registry=False, dropout="attention_dropout", adds_residual=True,
    refused_if=(
        (
            lambda config: config.apply_residual_connection_post_layernorm,
            _refuse(
                "in this config (apply_residual_connection_post_layernorm) the branches are added "
                "to what the norms write, so the residual stream is not the sum of its parts",
                "result", "attn_out", "resid_mid", "mlp_out",
            ),
        ),
        (
            lambda config: config.slow_but_exact and config.pretraining_tp > 1,
            _refuse(
                "in this config (slow_but_exact with pretraining_tp > 1) the block multiplies by "
                "slices of the output weights and never calls the modules that hold them",
                "z", "result", "attn_out", "resid_mid", "mlp_post", "mlp_out",
            ),
        ),
    ),
)  # fmt: skip
FALCON: Final = Family(
    attn="self_attention", qkv=("query_key_value",), layout="heads", o="dense",
    up="dense_h_to_4h", gate=None, down="dense_4h_to_h",
    embed="word_embeddings", ln_final="ln_f", rotary="rotary", parallel="parallel_attn",
    registry=False, inplace_mlp_out=True,
)  # fmt: skip
#: What TransformerLens computes, by names of our own (``interp.models.hooked``).
HOOKED: Final = Family(
    attn="attn", qkv=("q", "k", "v"), o="o", up="up", gate="gate", down="down",
    ln1="ln1", ln2="ln2", attn_norm="ln1_post", mlp_norm="ln2_post",
    embed="embed", pos_embed="pos_embed", ln_final="ln_final",
    rotary="rotary", parallel="parallel", softmax_float32=False,
    without_if=(
        (lambda config: config.normalization is None, ("ln1", "ln2")),
        (lambda config: not config.norm_after, ("attn_norm", "mlp_norm")),
        (lambda config: not config.gated_mlp, ("gate",)),
        (lambda config: config.position_embedding != "standard", ("pos_embed",)),
        (lambda config: config.num_experts is not None, ("up", "gate", "down")),
    ),
    refused_if=(
        (lambda config: config.num_experts is not None, MIXTRAL.refused),
        (
            lambda config: config.attention_only,
            _refuse(
                "this model is attention-only: its blocks have no MLP",
                "mlp.input", "mlp_pre", "mlp_post", "mlp_out", "ln2.scale", "ln2.normalized",
            )
            | _refuse("this model is attention-only: use resid_post", "resid_mid"),
        ),
        (
            lambda config: config.normalization is None,
            _refuse(
                "this model has no norms", "ln1.scale", "ln1.normalized", "ln2.scale",
                "ln2.normalized", "ln_final.scale", "ln_final.normalized",
            ),
        ),
    ),
)  # fmt: skip

#: Families known to work, by ``config.model_type``.
FAMILIES: Final[dict[str, Family]] = {
    "gpt2": GPT2,
    "gpt_neox": NEOX,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2,
    "olmo": LLAMA,
    "olmo2": OLMO2,
    "opt": OPT,
    "phi": PHI,
    "phi3": PHI3,
    "granite": LLAMA,
    "smollm3": LLAMA,
    "stablelm": replace(LLAMA, parallel="use_parallel_residual"),
    "mixtral": MIXTRAL,
    "gptj": GPTJ,
    "gpt_neo": GPT_NEO,
    "bloom": BLOOM,
    "falcon": FALCON,
    "hooked_transformer": HOOKED,
}

#: Families refused whole, each with the reason.
REFUSED_FAMILIES: Final[dict[str, str]] = {
    "gpt_oss": "its attention has sinks (a learned extra softmax column), so the rows of its "
    "pattern do not sum to one, and no site of it is checked yet",
}
