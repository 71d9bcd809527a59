"""The linear maps of one layer's heads, between the residual stream and the head.

Folded, each map reads the norm's ``normalized`` (γ and β inside, LayerNorm's centring too) and
writes what reaches the residual stream (γ of a norm after the branch, residual multiplier; the
mean that every later LayerNorm takes out is left out). A norm's division is by a positive number
for each position, which no weight knows: it is taken as 1 (frozen), so only directions and
ratios mean something, as everywhere in this room. Norms on q and k (Qwen-3, Gemma-3, OLMo-2)
are treated alike: γ folded, division left out.

Key-value heads are repeated, so every map has one entry for each query head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.folding import norm_before_attention
from interp.models.model import Model
from interp.taps.norms import centres, gamma

__all__ = ["Heads", "check_head", "final_centres", "heads_of", "norm_rows", "qk_norm", "written"]


@dataclass(frozen=True, eq=False, repr=False)
class Heads:
    """One layer's heads: ``x @ q + b_q`` is a query, ``pattern @ (x @ v) @ o`` what is written."""

    q: Float[Tensor, "head d_model d_head"]
    k: Float[Tensor, "head d_model d_head"]
    v: Float[Tensor, "head d_model d_head"]
    o: Float[Tensor, "head d_head d_model"]
    b_q: Float[Tensor, "head d_head"]
    b_k: Float[Tensor, "head d_head"]


@torch.no_grad()
def heads_of(model: Model, layer: int, *, folded: bool = True, qk_norms: bool = True) -> Heads:
    """The maps of a layer, in float32 or better.

    Args:
        folded: with norms and multipliers, or the bare weights.
        qk_norms: fold γ of norms on q and k too.

    Raises:
        ModelError: there is no such layer, or the family's weights cannot be viewed or folded.
    """
    config: Any = model.anatomy.hf.config.get_text_config()
    if folded and not getattr(config, "do_layer_norm_before", True):
        raise ModelError(
            f"this {model.anatomy.name} model normalises the residual stream itself behind every "
            "branch, so heads have no direct paths to fold: use folded=False, normalise=False."
        )
    weights = model.weights.folded() if folded else model.weights
    at, groups = weights.layer(layer), model.n_heads // model.n_kv_heads
    read = {name: _wide(getattr(at, name)) for name in ("W_Q", "W_K", "W_V", "b_Q", "b_K")}
    for name in ("W_K", "W_V", "b_K"):
        read[name] = read[name].repeat_interleave(groups, 0)
    norm = norm_before_attention(model.anatomy, model.anatomy.blocks[layer]) if folded else None
    if norm is not None and centres(norm):
        for name in ("W_Q", "W_K", "W_V"):
            read[name] = read[name] - read[name].mean(-2, keepdim=True)
    if folded and qk_norms:
        for letter, kind in (("Q", "q"), ("K", "k")):
            found = qk_norm(model, layer, kind)
            if found is not None:
                read |= _folded(model, found, letter, read)
    o = _wide(at.W_O)
    return Heads(
        q=read["W_Q"], k=read["W_K"], v=read["W_V"], b_q=read["b_Q"], b_k=read["b_K"],
        o=written(model, layer, "attn", o) if folded else o,
    )  # fmt: skip


@torch.no_grad()
def written(
    model: Model, layer: int, branch: str, vectors: Float[Tensor, "*any d_model"]
) -> Float[Tensor, "*any d_model"]:
    """What reaches the residual stream of vectors that attention or the MLP writes."""
    block = model.anatomy.blocks[layer]
    last: Any = block.attn_branch if branch == "attn" else block.mlp_branch
    inner = (block.attn, block.o) if branch == "attn" else (block.mlp, block.down)
    if last is not None and last not in inner:  # a norm stands behind the branch
        vectors = vectors * gamma(last, model.anatomy.family.norm_offset)
    vectors = vectors * model.anatomy.residual_multiplier
    return vectors - vectors.mean(-1, keepdim=True) if final_centres(model) else vectors


def final_centres(model: Model) -> bool:
    """Whether the final norm takes the mean out of the residual stream."""
    norm = model.anatomy.ln_final
    return norm is not None and centres(norm)


def qk_norm(model: Model, layer: int, kind: str) -> nn.Module | None:
    """The norm on queries or keys; None if there is none."""
    attn: Any = model.anatomy.blocks[layer].attn
    found = getattr(attn, f"{kind}_norm", None) or getattr(attn, f"{kind}_layernorm", None)
    return found if isinstance(found, nn.Module) else None


def norm_rows(
    model: Model, layer: int, kind: str, rows: Float[Tensor, "row head d_head"]
) -> Float[Tensor, "row head d_head"]:
    """Queries or keys of all heads after the layer's norm on them, if it has one."""
    found = qk_norm(model, layer, kind)
    if found is None:
        return rows
    with torch.no_grad():
        if hasattr(found, "norms"):  # StableLM: a norm for each head
            own: Any = found.norms
            groups = rows.shape[1] // len(own)
            parts = [own[i // groups](rows[:, i].to(model.dtype)) for i in range(rows.shape[1])]
            return torch.stack(parts, 1).to(rows.dtype)
        weight: Any = getattr(found, "weight", None)
        if weight is None or weight.numel() == rows.shape[-1]:
            return found(rows.to(model.dtype)).to(rows.dtype)
        # OLMo-2: one norm over all heads, of keys over the key-value heads
        own_heads = weight.numel() // rows.shape[-1]
        flat = rows[:, :: rows.shape[1] // own_heads].flatten(1)
        out = found(flat.to(model.dtype)).to(rows.dtype).unflatten(1, (own_heads, -1))
        return out.repeat_interleave(rows.shape[1] // own_heads, 1)


def check_head(model: Model, layer: int, head: int) -> None:
    """Is there such a head?"""
    if not (0 <= layer < model.n_layers and 0 <= head < model.n_heads):
        raise ModelError(
            f"layer {layer}, head {head}: this model has layers 0 to {model.n_layers - 1} and "
            f"heads 0 to {model.n_heads - 1}."
        )


def _folded(
    model: Model, norm: nn.Module, letter: str, read: dict[str, Tensor]
) -> dict[str, Tensor]:
    """W and b of q or k with the norm's γ and β folded, its division left out."""
    own: Any = norm
    matrix, bias = read[f"W_{letter}"], read[f"b_{letter}"]
    heads, _, d_head = matrix.shape
    parts = list(own.norms) if hasattr(own, "norms") else [own]
    if centres(parts[0]):
        matrix, bias = matrix - matrix.mean(-1, keepdim=True), bias - bias.mean(-1, keepdim=True)
    factors = [gamma(part, model.anatomy.family.norm_offset) for part in parts]
    factor = torch.stack([torch.as_tensor(f).to(bias).expand(-1 if torch.is_tensor(f) else d_head)
                          for f in factors]).reshape(-1, d_head)  # fmt: skip
    factor = factor.repeat_interleave(heads // len(factor), 0).detach()
    beta = getattr(parts[0], "bias", None)
    shift = 0.0 if beta is None else beta.detach().to(bias)
    return {f"W_{letter}": matrix * factor[:, None], f"b_{letter}": bias * factor + shift}


def _wide(x: Tensor) -> Tensor:
    """In float32 or better, as an ordinary tensor."""
    return x.as_subclass(Tensor).to(torch.promote_types(x.dtype, torch.float32))
