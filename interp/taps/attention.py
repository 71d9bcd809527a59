"""The one attention function: eager attention that shows its scores and its pattern.

Transformers looks the attention function up by name in ``ALL_ATTENTION_FUNCTIONS``
on every call, so a function registered once under ``"interp"`` serves each model
whose config names it for the length of a run. It computes what each family's own
eager function computes, in the same order, so its results are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.taps.anatomy import Anatomy

__all__ = ["NAME", "explicit_attention", "tapped_attention", "weighed", "weights_of"]

NAME: Final = "interp"
#: Attention for runs over some of the positions: the mask is always a tensor, the kernel fast.
EXPLICIT: Final = "interp_explicit"

#: What to call on the tensors inside one module's attention, keyed by point.
Inner = Mapping[str, Callable[[Tensor], Tensor]]

_inner: ContextVar[Mapping[nn.Module, Inner]] = ContextVar("attention taps")
_softmax_float32: ContextVar[bool] = ContextVar("softmax in float32")


def weights_of(
    weighting: str, scores: Float[Tensor, "*any query key"], *, dtype: torch.dtype | None = None
) -> Float[Tensor, "*any query key"]:
    """The pattern that scores make.

    Args:
        weighting: ``"softmax"`` over keys; ``"sigmoid"`` of each score; ``"linear"``: the score itself,
            and 0 where the mask has hidden a key.
        dtype: to softmax in; None: that of the scores.
    """
    if weighting == "softmax":
        return torch.softmax(scores, dim=-1, dtype=dtype)
    if weighting == "sigmoid":
        return torch.sigmoid(scores)
    lowest = max(torch.finfo(scores.dtype).min, torch.finfo(torch.float32).min)
    return scores.masked_fill(scores < lowest / 2, 0.0)


def weighed(
    module: nn.Module, scores: Float[Tensor, "*any query key"], *, dtype: torch.dtype | None = None
) -> Float[Tensor, "*any query key"]:
    """The pattern that an attention module makes of scores: a softmax, but in toys that say otherwise."""
    return weights_of(getattr(module, "weighting", "softmax"), scores, dtype=dtype)


def _attention(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_head"],
    attention_mask: Float[Tensor, "#batch #head query key"] | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "batch query head d_head"], Float[Tensor, "batch head query key"]]:
    taps = _inner.get().get(module, {})

    def tap(point: str, tensor: Tensor) -> Tensor:
        return taps[point](tensor) if point in taps else tensor

    query = tap("rot_q", query.transpose(1, 2)).transpose(1, 2)
    key = tap("rot_k", key.transpose(1, 2)).transpose(1, 2)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    scores = tap("attn_scores", scores)
    dtype = torch.float32 if _softmax_float32.get() else None
    pattern = weighed(module, scores, dtype=dtype).to(value.dtype)
    pattern = tap("pattern", pattern)
    weights = nn.functional.dropout(pattern, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), pattern


def _explicit(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_head"],
    attention_mask: Float[Tensor, "#batch #head query key"] | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> tuple[Float[Tensor, "batch query head d_head"], Tensor | None]:
    """Scaled dot-product attention under the mask as given, whatever the number of queries."""
    if softcap is not None or getattr(module, "weighting", "softmax") != "softmax":
        # the fused kernel has no soft-cap, and no other weights than a softmax
        return _attention(
            module, query, key, value, attention_mask, scaling=scaling, softcap=softcap, **rest
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mask = None if attention_mask is None else attention_mask[..., : key.shape[-2]]
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling
    )
    return out.transpose(1, 2).contiguous(), None


for _name, _function in ((NAME, _attention), (EXPLICIT, _explicit)):
    ALL_ATTENTION_FUNCTIONS.register(_name, _function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_name, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


@contextmanager
def explicit_attention(anatomy: Anatomy) -> Iterator[None]:
    """Within the ``with`` block a registered family's mask is a tensor ``[batch, 1, query, key]``
    to add. Families with attention code of their own keep the kernel they were loaded with."""
    if not anatomy.family.registry:
        yield
        return
    tokens = (_inner.set({}), _softmax_float32.set(anatomy.family.softmax_float32))
    try:
        with _switched(anatomy, EXPLICIT):
            yield
    finally:
        _inner.reset(tokens[0])
        _softmax_float32.reset(tokens[1])


@contextmanager
def _switched(anatomy: Anatomy, name: str) -> Iterator[None]:
    """The model's attention under another name; the configs are put back, however it ends."""
    configs = list(anatomy.configs())
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, old in zip(configs, before, strict=True):
            config._attn_implementation_internal = old


@contextmanager
def tapped_attention(anatomy: Anatomy, inner: Mapping[nn.Module, Inner]) -> Iterator[None]:
    """Route the model's attention through :func:`_attention` inside the ``with`` block.

    With nothing to tap the model keeps the attention it was loaded with. The
    configs are put back as they were, also after an exception.
    """
    if not inner:
        yield
        return
    tokens = (_inner.set(inner), _softmax_float32.set(anatomy.family.softmax_float32))
    try:
        with _switched(anatomy, NAME):
            yield
    finally:
        _inner.reset(tokens[0])
        _softmax_float32.reset(tokens[1])
