"""Where a model keeps its parts: the modules that the taps hook.

``anatomy(hf)`` looks the family up, follows its paths, and says for every
point either which module carries it or why there is none. It only looks: the
model is not touched.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.sites import POINTS
from interp.taps.families import FAMILIES, REFUSED_FAMILIES, Family
from interp.taps.splices import Splice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Anatomy", "Block", "dissect"]


@dataclass(frozen=True)
class Block:
    """The hookable modules of one block; None where the family has no such part."""

    module: nn.Module
    attn: nn.Module | None
    dropout: nn.Module | None  # what the pattern passes right before v, in own attention code
    qkv: tuple[nn.Module, ...]
    o: nn.Module | None
    mlp: nn.Module | None
    up: nn.Module | None
    gate: nn.Module | None
    down: nn.Module | None
    ln1: nn.Module | None
    ln2: nn.Module | None
    attn_branch: nn.Module | None  # its output is what attention adds to the residual
    mlp_branch: nn.Module | None

    @property
    def norm_after_attn(self) -> bool:
        """Whether a norm stands between ``o`` and the residual stream."""
        return self.attn_branch not in (self.attn, self.o)


@dataclass(frozen=True)
class Anatomy:
    """A model's parts and sizes.

    Attributes:
        causal: whether a position sees itself and earlier ones only; else it sees all.
        refused: points that cannot be tapped, with reasons.
        splices: what stands in each run in the place of parts of the model (``model.replaced``).
    """

    hf: PreTrainedModel
    family: Family
    name: str
    known: bool
    blocks: tuple[Block, ...]
    embed: nn.Module
    pos_embed: nn.Module | None
    ln_final: nn.Module | None
    decoder: nn.Module
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    n_ctx: int | None
    parallel: bool
    residual_multiplier: float
    embedding_multiplier: float
    causal: bool = True
    refused: Mapping[str, str] = field(default_factory=dict)
    splices: tuple[Splice, ...] = ()

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def attention_only(self) -> bool:
        """Whether the blocks have no MLP: each is its attention alone."""
        return bool(getattr(self.hf.config.get_text_config(), "attention_only", False))

    @property
    def weighting(self) -> str:
        """What makes a pattern of scores: ``"softmax"`` in all but toys (``"sigmoid"``, ``"linear"``)."""
        return str(getattr(self.hf.config.get_text_config(), "attention_weighting", "softmax"))

    @property
    def branches(self) -> tuple[str, ...]:
        """Points at which a block adds to the residual stream."""
        return ("attn_out",) if self.attention_only else ("attn_out", "mlp_out")

    @property
    def d_vocab_out(self) -> int:
        """Width of the logits; that of the embedding but in models with another output vocabulary."""
        config = self.hf.config.get_text_config()
        return int(getattr(config, "output_vocab_size", None) or config.vocab_size)

    @property
    def d_mlp(self) -> int | None:
        """Neurons of one block; None where an MLP has no such number (mixtures of experts), or
        there is none."""
        down: Any = self.blocks[0].down
        if down is None:
            return None
        return int(down.weight.shape[0 if type(down).__name__ == "Conv1D" else 1])

    def spliced(self, point: str) -> dict[int, int]:
        """Layers in which a dictionary shows a point (features, error), with its ``d_sae``."""
        found = {layer: splice.d_sae for splice in self.splices for name, layer in splice.shown
                 if name == point and layer is not None}  # fmt: skip
        return dict(sorted(found.items()))

    def cut(self, x: Float[Tensor, "*any columns"], part: int) -> Float[Tensor, "*any _ d_head"]:
        """q (part 0), k or v by head, from what its projection (or the fused one) writes.

        A view, but for queries that stand in several groups between k and v (Falcon-40B).
        """
        heads = (self.n_heads, self.n_kv_heads, self.n_kv_heads)
        if self.family.layout == "split":
            return x.unflatten(-1, (heads[part], self.d_head))
        if self.family.layout == "blocks":
            x = x.split([n * self.d_head for n in heads], dim=-1)[part]
            return x.unflatten(-1, (heads[part], self.d_head))
        grouped = x.unflatten(-1, (self.n_kv_heads, -1, self.d_head))
        return grouped[..., (slice(-2), -2, -1)[part], :].flatten(-3 if part == 0 else -2, -2)

    def join(
        self, parts: Sequence[Float[Tensor, "*any _ d_head"]]
    ) -> Float[Tensor, "*any columns"]:
        """What the fused projection writes, from q, k and v by head: undoes :meth:`cut`."""
        if self.family.layout == "blocks":
            return torch.cat([part.flatten(-2) for part in parts], dim=-1)
        grouped = [part.unflatten(-2, (self.n_kv_heads, -1)) for part in parts]
        return torch.cat(grouped, dim=-2).flatten(-3)

    @cached_property
    def forward_takes(self) -> frozenset[str]:
        """Names of the arguments that the model's forward has."""
        return frozenset(inspect.signature(self.hf.forward).parameters)

    def configs(self) -> Iterator[Any]:
        """The distinct config objects that modules of this model read."""
        seen: dict[int, Any] = {}
        for module in self.hf.modules():
            config = getattr(module, "config", None)
            if config is not None and hasattr(config, "_attn_implementation_internal"):
                seen[id(config)] = config
        yield from seen.values()


def dissect(hf: PreTrainedModel) -> Anatomy:
    """Find the parts of a Hugging Face causal language model.

    Raises:
        ModelError: the family is refused whole, or no stack of blocks is found.
    """
    config = hf.config.get_text_config()
    name = config.model_type
    if name in REFUSED_FAMILIES:
        raise ModelError(f"models of type {name!r} are refused: {REFUSED_FAMILIES[name]}.")
    lacking = [key for key in _NEEDED if not isinstance(getattr(config, key, None), int)]
    if lacking:
        raise ModelError(
            f"models of type {name!r} are not supported: the config lacks {', '.join(lacking)}; "
            "expected a decoder-only transformer with attention in each block."
        )
    decoder = _decoder(hf)
    stack = _stack(decoder, config.num_hidden_layers, name)
    family = FAMILIES.get(name)
    known = family is not None
    if family is None:
        family = _guess(decoder, stack[0], name)
    family = family.of(config)
    blocks = tuple(_block(module, family) for module in stack)
    embed = _follow(decoder, "project_in") or _follow(decoder, family.embed)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or getattr(
        blocks[0].attn, "num_kv_heads", None
    )
    parallel = _holds(family.parallel, config)
    return Anatomy(
        hf=hf,
        family=family,
        name=name,
        known=known,
        blocks=blocks,
        embed=embed or hf.get_input_embeddings(),
        pos_embed=_follow(decoder, family.pos_embed),
        ln_final=_follow(decoder, family.ln_final),
        decoder=decoder,
        n_heads=heads,
        n_kv_heads=kv_heads or heads,
        d_model=config.hidden_size,
        d_head=getattr(config, "head_dim", None) or config.hidden_size // heads,
        n_ctx=getattr(config, "max_position_embeddings", None),
        parallel=parallel,
        residual_multiplier=float(getattr(config, "residual_multiplier", 1.0)),
        embedding_multiplier=float(getattr(config, "embedding_multiplier", 1.0)),
        causal=bool(getattr(config, "is_causal", True)),
        refused=_refusals(family, config, blocks[0], decoder, parallel=parallel),
    )


_NEEDED = ("num_hidden_layers", "num_attention_heads", "hidden_size")


def _decoder(hf: PreTrainedModel) -> nn.Module:
    decoder = hf.get_decoder() if hasattr(hf, "get_decoder") else None
    return hf.base_model if decoder is None else decoder


def _stack(decoder: nn.Module, n_layers: int, name: str) -> nn.ModuleList:
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return module
    raise ModelError(
        f"models of type {name!r} are not known, and no list of {n_layers} blocks was found in "
        f"{type(decoder).__name__}: expected a decoder-only language model. "
        f"Known types: {', '.join(sorted(FAMILIES))}."
    )


def _follow(root: nn.Module, path: str | None) -> Any:
    """The submodule at a dotted path; None if the path or any part of it is missing."""
    found: Any = root
    for part in [] if path is None else path.split("."):
        found = getattr(found, part, None)
    return None if path is None else found


def _block(module: nn.Module, family: Family) -> Block:
    attn = _follow(module, family.attn)
    mlp = _follow(module, family.mlp)
    inside = module if family.mlp is None else mlp
    up, gate, down = (
        None if inside is None else _follow(inside, path)
        for path in (family.up, family.gate, family.down)
    )
    qkv = tuple(_follow(attn, path) for path in family.qkv) if attn is not None else ()
    o = None if attn is None else _follow(attn, family.o)
    bare = family.mlp is None or family.adds_residual  # the MLP module is more than its branch
    return Block(
        module=module,
        attn=attn,
        dropout=None if attn is None else _follow(attn, family.dropout),
        qkv=qkv if all(part is not None for part in qkv) else (),
        o=o,
        mlp=up if family.mlp is None else mlp,
        up=up,
        gate=gate,
        down=down,
        ln1=_follow(module, family.ln1),
        ln2=_follow(module, family.ln2),
        attn_branch=_follow(module, family.attn_norm) or (o if family.adds_residual else attn),
        mlp_branch=_follow(module, family.mlp_norm) or (down if bare else mlp),
    )


def _holds(trait: bool | str, config: Any) -> bool:
    """A family's trait, or the config flag that it names."""
    return bool(getattr(config, trait, False)) if isinstance(trait, str) else trait


_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
_MLP_NAMES = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
_LN_FINAL_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")


def _guess(decoder: nn.Module, block: nn.Module, name: str) -> Family:
    """A family for a type that is not listed: only the residual stream and its branches.

    The self-check proves each of them, or they are refused.
    """
    attn = next((n for n in _ATTENTION_NAMES if hasattr(block, n)), "")
    mlp = next((n for n in _MLP_NAMES if hasattr(block, n)), "")
    ln_final = next((n for n in _LN_FINAL_NAMES if hasattr(decoder, n)), "")
    post = hasattr(block, "pre_feedforward_layernorm") or not hasattr(block, "input_layernorm")
    after_attn = post and hasattr(block, "post_attention_layernorm")
    after_mlp = post and hasattr(block, "post_feedforward_layernorm")
    reason = f"models of type {name!r} are not known: only the residual stream and its branches are"
    inner = [p for p in POINTS if p not in _OUTER and not POINTS[p].spliced]
    return Family(
        attn=attn,
        mlp=mlp,
        ln_final=ln_final,
        attn_norm="post_attention_layernorm" if after_attn else None,
        mlp_norm="post_feedforward_layernorm" if after_mlp else None,
        registry=False,
        refused=dict.fromkeys(inner, reason),
    )


_OUTER = ("embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "logits")


def _refusals(
    family: Family, config: Any, block: Block, decoder: nn.Module, *, parallel: bool
) -> dict[str, str]:
    """Points this model does not have: the family's own list, and parts that are not there."""
    refused = dict(family.refused)
    for condition, points in family.refused_if:
        refused |= points if condition(config) else {}
    kernel = getattr(config, "_attn_implementation", None)
    if not family.registry and kernel not in (None, "eager", "sdpa"):
        reason = f"attention here is the fused kernel {kernel!r}: load with eager attention"
        for point in ("rot_q", "rot_k", "attn_scores", "pattern"):
            refused.setdefault(point, reason)
    if parallel:
        refused["resid_mid"] = "attention and MLP run in parallel: nothing lies between them"
    if not _holds(family.rotary, config):
        reason = "this model has no rotary positions: q and k enter the scores as they are"
        refused |= {"rot_q": reason + "; use q", "rot_k": reason + "; use k"}
    if family.pos_embed is None:
        refused["pos_embed"] = "this family adds no position embedding to the residual stream"
    parts = {
        "ln1.scale": block.ln1, "ln1.normalized": block.ln1,
        "ln2.scale": block.ln2, "ln2.normalized": block.ln2,
        "q": block.qkv, "k": block.qkv, "v": block.qkv,
        "attn_scores": block.attn, "pattern": block.dropout if family.dropout else block.attn,
        "attn.input": block.attn, "attn_out": block.attn_branch, "z": block.o, "result": block.o,
        "mlp.input": block.mlp, "mlp_out": block.mlp_branch,
        "mlp_pre": block.gate if family.gate else block.up, "mlp_post": block.down,
        "ln_final.scale": _follow(decoder, family.ln_final),
        "ln_final.normalized": _follow(decoder, family.ln_final),
    }  # fmt: skip
    for point, part in parts.items():
        if not part and not isinstance(part, nn.Module):
            refused.setdefault(point, "the module that carries it is not in this model's blocks")
    return refused
