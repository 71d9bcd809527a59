"""Running variants: restarted at the first block that reads an ablated edge, where blocks replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.base import Base
from interp.engine.kernels import replay_kernels
from interp.engine.readout import Readout
from interp.engine.where import Picked, Tail, Where
from interp.graph.slab import Slab
from interp.graph.stack import Stack
from interp.runs.execute import forward
from interp.taps.points import Key, tapped
from interp.taps.unembed import unembed

__all__ = ["first_block", "logits_of"]

Removed = Float[Tensor, "variant source dest *position"]


def first_block(slab: Slab, removed: Removed) -> Int[Tensor, " variant"]:
    """The first block that reads an ablated edge; ``n_layers`` if only the logits do, or nothing."""
    graph = slab.graph
    read = (removed != 0).transpose(1, 2).flatten(2).any(-1)  # [variant, dest]
    layers = torch.tensor([graph.layer_of(d) for d in range(len(graph.dests))], device=read.device)
    return torch.where(read, layers, graph.n_layers).amin(1)


def logits_of(
    slab: Slab, removed: Removed, first: int, readout: Readout, *, grad: bool = False
) -> Float[Tensor, "variant prompt *pos vocab"]:
    """What is read of every variant's run."""
    stack = Stack(slab, removed, first, grad=grad)
    with torch.set_grad_enabled(grad), replay_kernels(slab.parts.anatomy):
        if slab.base is None:
            return _from_embeddings(stack, readout)
        return _restarted(stack, slab.base, first, readout)


def _restarted(stack: Stack, base: Base, first: int, readout: Readout) -> Tensor:
    slab, anatomy, n = stack.slab, base.anatomy, stack.variants
    x, last = Tail(slab.start, n).take(base.resid[first], 1), anatomy.n_layers - 1
    picks = base.picks(readout.answer)
    for layer in range(first, last if picks else last + 1):
        x = _block(stack, base, layer, x, _Joined(base, layer, slab.start))
    if readout.answer is not None:
        columns = readout.answer.to(x.device) - slab.start
        keys = _keys(stack, base, x) if picks and first <= last else None
        x = x[torch.arange(x.shape[0], device=x.device), columns.repeat(n)][:, None]
        stack = stack.at(columns)
        if keys is not None:
            x = _block(stack, base, last, x, keys, Picked(readout.answer[None].expand(n, -1)))
    x = stack.logits_read(x)
    with tapped(anatomy, _held(stack)):
        logits = unembed(anatomy, x, columns=readout.vocab).unflatten(0, (n, -1))
    if readout.answer is not None:
        return logits[:, :, 0]
    return torch.cat([base.logits[:, : slab.start].expand(n, -1, -1, -1), logits], 2)


def _block(
    stack: Stack, base: Base, layer: int, x: Tensor, keys: Any, where: Where | None = None
) -> Float[Tensor, "row some d_model"]:
    """The stream behind a block; at a single column if keys and values are given."""
    own = Tail(stack.slab.start, stack.variants) if where is None else where
    functions = stack.functions(layer, "qkv" if where is None else "q")
    with tapped(base.anatomy, functions):
        module = base.anatomy.blocks[layer].module
        out = module(hidden_states=x, **base.kwargs(layer, own, keys))
    return out[0] if isinstance(out, tuple) else out


def _keys(stack: Stack, base: Base, x: Tensor) -> _Given:
    """All keys and values of the last block, which stops as soon as its attention hands them over."""
    layer, where = base.anatomy.n_layers - 1, Tail(stack.slab.start, stack.variants)
    given = base.kwargs(layer, where, _Stopping(base, layer, stack.slab.start))
    with tapped(base.anatomy, stack.functions(layer, "kv")):
        try:
            base.anatomy.blocks[layer].module(hidden_states=x, **given)
        except _HandedOver as seen:
            return _Given(*seen.args)
    raise AssertionError("the block never handed over its keys")  # run_base has checked


def _held(stack: Stack) -> dict[Key, Any]:
    """The final norm's scale, where it is held."""
    scale = stack.slab.scales.get(("ln_final.scale", None))
    if scale is None:
        return {}
    rows = scale.repeat(stack.variants, 1, 1)
    return {("ln_final.scale", None): lambda own: rows.to(own.dtype)}


def _from_embeddings(stack: Stack, readout: Readout) -> Tensor:
    """One forward pass of the whole model."""
    slab, anatomy = stack.slab, stack.parts.anatomy
    n = stack.variants
    functions: dict[Key, Any] = {}
    for layer in range(anatomy.n_layers):
        functions |= stack.functions(layer)
    functions["resid_post", anatomy.n_layers - 1] = stack.logits_read
    functions |= _held(stack)
    rows = slab.tokens.rows(torch.arange(len(slab)).repeat(n).tolist())
    with tapped(anatomy, functions):
        logits = forward(anatomy, rows, last=readout.answer is not None)
    logits = logits if readout.vocab is None else logits[..., readout.vocab]
    logits = logits.unflatten(0, (n, -1))
    return logits[:, :, 0] if readout.answer is not None else logits


@dataclass(frozen=True, eq=False)
class _Joined:
    """A block's key-value cache: the base's keys and values before the tail, then its own."""

    base: Base
    layer: int
    start: int

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if self.start == 0:
            return keys, values
        return self._join(self.base.keys, keys), self._join(self.base.values, values)

    def _join(self, base: tuple[Tensor, ...], own: Tensor) -> Tensor:
        before = base[self.layer][:, :, : self.start]
        before = before.repeat_interleave(own.shape[1] // before.shape[1], 1)  # grouped heads
        copies = own.shape[0] // before.shape[0]
        return torch.cat([before.repeat(copies, 1, 1, 1), own], 2)


class _HandedOver(Exception):  # noqa: N818 (it is no error)
    """Raised once a block has handed over its keys and values."""


class _Stopping(_Joined):
    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise _HandedOver(*super().update(keys, values))


@dataclass(frozen=True, eq=False)
class _Given:
    """A cache that hands attention these keys and values instead of the block's own."""

    keys: Tensor
    values: Tensor

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.keys, self.values
