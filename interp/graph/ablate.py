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
from interp.engine.where import Tail
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
    slab, anatomy = stack.slab, base.anatomy
    where = Tail(slab.start, stack.variants)
    x = where.take(base.resid[first], 1)
    for layer in range(first, anatomy.n_layers):
        kwargs = base.kwargs(layer, where, _Joined(base, layer, slab.start))
        with tapped(anatomy, stack.functions(layer)):
            out = anatomy.blocks[layer].module(hidden_states=x, **kwargs)
        x = out[0] if isinstance(out, tuple) else out
    x = stack.logits_read(x)
    scale = slab.scales.get(("ln_final.scale", None))
    if readout.answer is not None:
        x = _picked(x, stack, readout)
        scale = (
            None if scale is None else _picked(scale.repeat(stack.variants, 1, 1), stack, readout)
        )
    elif scale is not None:
        scale = scale.repeat(stack.variants, 1, 1)
    with tapped(anatomy, _held(scale)):
        logits = unembed(anatomy, x, columns=readout.vocab)
    logits = logits.unflatten(0, (stack.variants, -1))
    if readout.answer is not None:
        return logits[:, :, 0]
    before = base.logits[:, : slab.start].expand(stack.variants, -1, -1, -1)
    return torch.cat([before, logits], 2)


def _picked(x: Tensor, stack: Stack, readout: Readout) -> Float[Tensor, "row 1 number"]:
    """The columns that are read."""
    assert readout.answer is not None
    columns = (readout.answer.to(x.device) - stack.slab.start).repeat(stack.variants)
    return x[torch.arange(x.shape[0], device=x.device), columns][:, None]


def _held(scale: Tensor | None) -> dict[Key, Any]:
    """The final norm's scale, where it is held."""
    return {} if scale is None else {("ln_final.scale", None): lambda own: scale.to(own.dtype)}


def _from_embeddings(stack: Stack, readout: Readout) -> Tensor:
    """One forward pass of the whole model."""
    slab, anatomy = stack.slab, stack.parts.anatomy
    n = stack.variants
    functions: dict[Key, Any] = {}
    for layer in range(anatomy.n_layers):
        functions |= stack.functions(layer)
    functions["resid_post", anatomy.n_layers - 1] = stack.logits_read
    scale = slab.scales.get(("ln_final.scale", None))
    functions |= _held(None if scale is None else scale.repeat(n, 1, 1))
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
