"""What destinations read less, where edges into them are ablated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Losses", "Written", "losses"]


@dataclass(frozen=True, eq=False)
class Written:
    """What some neighbouring sources lose where their edges are ablated.

    Attributes:
        first: the first of them.
        change: their values in the run less their ablated values; a variant's own, or one for all.
    """

    first: int
    change: Float[Tensor, "#variant source prompt pos d"]

    @property
    def stop(self) -> int:
        return self.first + self.change.shape[1]

    def at(self, columns: Int[Tensor, " prompt"]) -> Written:
        """The same at one column of each prompt."""
        rows = torch.arange(self.change.shape[2], device=self.change.device)
        return Written(self.first, self.change[:, :, rows, columns][:, :, :, None])


@dataclass(frozen=True, eq=False)
class Losses:
    """Readers (one destination in one variant) that read less than the stream.

    Attributes:
        variant, dest: which they are; ``dest`` counts among the destinations asked for.
        lost: by how much, in the stream's unit.
    """

    variant: Int[Tensor, " reader"]
    dest: Int[Tensor, " reader"]
    lost: Float[Tensor, "reader prompt pos d"]


def losses(
    removed: Float[Tensor, "variant source dest *position"],
    written: Sequence[Written],
    groups: Int[Tensor, "prompt pos"] | None,
    *,
    everywhere: Bool[Tensor, "source dest"] | None = None,
) -> Losses | None:
    """Σ over sources of the ablated share times what is lost; None where nothing is ablated.

    Args:
        removed: the ablated share of the edges into some destinations.
        groups: the group of positions of each column, if the shares have positions.
        everywhere: edges that count as ablated though their share be 0: those that shares are
            differentiated at.
    """
    if everywhere is None:
        hit = (removed != 0).flatten(3).any(-1) if removed.dim() > 3 else removed != 0
    else:
        hit = everywhere.expand(len(removed), -1, -1)
    variant, dest = hit.any(1).nonzero(as_tuple=True)
    if not len(variant):
        return None
    weights = removed[variant, :, dest]  # [reader, source, *position]
    every = everywhere is not None
    if groups is None:
        return Losses(variant, dest, _lost(len(removed), variant, weights, written, every))
    lost: Tensor | None = None
    for group in range(weights.shape[-1]):
        if everywhere is None and not bool((weights[..., group] != 0).any()):
            continue
        part = (
            _lost(len(removed), variant, weights[..., group], written, every)
            * (groups == group)[..., None]
        )
        lost = part if lost is None else lost + part
    assert lost is not None  # every reader has an ablated edge in some group
    return Losses(variant, dest, lost)


def _lost(
    variants: int,
    variant: Int[Tensor, " reader"],
    weights: Float[Tensor, "reader source"],
    written: Sequence[Written],
    every: bool,
) -> Float[Tensor, "reader prompt pos d"]:
    """Products of matrices: readers of one variant are rows of one matrix."""
    shape = written[0].change.shape[2:]
    counts = variant.bincount(minlength=variants)
    rank = torch.arange(len(variant), device=variant.device) - (counts.cumsum(0) - counts)[variant]
    most = int(counts.max())
    lost: Tensor | None = None  # [variant, rank, number]
    for piece in written:
        own = weights[:, piece.first : piece.stop]
        if not every and not bool((own != 0).any()):
            continue
        rows = own.new_zeros(variants, most, own.shape[1]).index_put((variant, rank), own)
        if piece.change.shape[0] == 1:  # the same for every variant
            part = (rows.flatten(0, 1) @ piece.change[0].flatten(1)).unflatten(0, (variants, most))
            lost = part if lost is None else lost + part
        elif lost is None:
            lost = torch.bmm(rows, piece.change.flatten(2))
        else:
            lost = torch.baddbmm(lost, rows, piece.change.flatten(2))
    assert lost is not None  # every reader has an ablated edge, from a source that has written
    full = len(variant) == variants * most
    lost = lost.flatten(0, 1) if full else lost[variant, rank]
    return lost.unflatten(1, shape)
