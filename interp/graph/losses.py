"""What destinations read less, where edges into them are ablated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
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
) -> Losses | None:
    """Σ over sources of the ablated share times what is lost; None where nothing is ablated.

    Args:
        removed: the ablated share of the edges into some destinations.
        groups: the group of positions of each column, if the shares have positions.
    """
    hit = (removed != 0).flatten(3).any(-1) if removed.dim() > 3 else removed != 0
    variant, dest = hit.any(1).nonzero(as_tuple=True)
    if not len(variant):
        return None
    weights = removed[variant, :, dest]  # [reader, source, *position]
    if groups is None:
        return Losses(variant, dest, _lost(variant, weights, written))
    lost: Tensor | None = None
    for group in range(weights.shape[-1]):
        part = _lost(variant, weights[..., group], written) * (groups == group)[..., None]
        lost = part if lost is None else lost + part
    assert lost is not None  # a graph with positions has at least one group
    return Losses(variant, dest, lost)


def _lost(
    variant: Int[Tensor, " reader"],
    weights: Float[Tensor, "reader source"],
    written: Sequence[Written],
) -> Float[Tensor, "reader prompt pos d"]:
    """One product of matrices for each group of sources that has an ablated edge."""
    lost: Tensor | None = None
    for piece in written:
        own = weights[:, piece.first : piece.stop]
        used = (own != 0).any(0).nonzero().flatten()
        if not len(used):
            continue
        shared = piece.change.shape[0] == 1
        chosen = piece.change if len(used) == own.shape[1] else piece.change[:, used]
        if shared:
            part = torch.tensordot(own[:, used], chosen[0], 1)
        else:
            part = _by_variant(variant, own[:, used], chosen)
        lost = part if lost is None else lost + part
    assert lost is not None  # every reader has an ablated edge, from a source that has written
    return lost


def _by_variant(
    variant: Int[Tensor, " reader"],
    weights: Float[Tensor, "reader source"],
    change: Float[Tensor, "variant source prompt pos d"],
) -> Float[Tensor, "reader prompt pos d"]:
    """Readers stand in the order of their variants, so those of one are rows of one matrix."""
    counts = variant.bincount(minlength=change.shape[0])
    rank = torch.arange(len(variant), device=variant.device) - (counts.cumsum(0) - counts)[variant]
    rows = weights.new_zeros(change.shape[0], int(counts.max()), weights.shape[1])
    rows = rows.index_put((variant, rank), weights)
    return torch.bmm(rows, change.flatten(2))[variant, rank].unflatten(1, change.shape[2:])
