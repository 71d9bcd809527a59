"""Which features resemble which: what they write, what they read, when they fire."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.inspection.chosen import Chosen
from interp.inspection.look import Looked

__all__ = ["Near", "by_firing", "by_weights"]

_BLOCK = 1 << 24  # cosines that may lie in memory at once


@dataclass(frozen=True, eq=False)
class Near:
    """The nearest features of each, nearest first.

    Attributes:
        ids: their numbers; -1 where there are no more.
        values: how near: a cosine or a correlation, -1 to 1.
    """

    ids: Int[Tensor, "feature n"]
    values: Float[Tensor, "feature n"]


@torch.no_grad()
def by_weights(chosen: Chosen, side: str, n: int) -> Near:
    """The nearest of all the dictionary's features by cosine, within each feature's own part.

    ``ids`` are numbers within that part. Of a part that writes to several layers, all it writes is one
    direction.

    Args:
        side: ``"enc"``, what they read, or ``"dec"``, what they write.
    """
    parts = []
    for part, units in zip(chosen.dictionary.parts, chosen.units, strict=True):
        every = getattr(part, side).detach().float()
        every = every / every.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        own = torch.arange(len(every), device=every.device) if units is None else units
        for some in own.split(max(1, _BLOCK // len(every))):
            parts.append(_nearest(every[some] @ every.T, some, n))
    return Near(*(torch.cat(found).cpu() for found in zip(*parts, strict=True)))


def by_firing(looked: Looked, n: int) -> Near:
    """The features of the set whose activations are most correlated over all tokens (Pearson's r).

    ``ids`` are places in the set. Features that never fire have none.
    """
    assert looked.products is not None
    mean = looked.total / looked.n_tokens
    spread = (looked.squares / looked.n_tokens - mean**2).clamp(min=0).sqrt()
    r = (looked.products / looked.n_tokens - mean[:, None] * mean) / (
        spread[:, None] * spread
    ).clamp(min=1e-30)
    dead = looked.count == 0
    r = r.masked_fill(dead | dead[:, None], -torch.inf).float()
    return Near(*(x.cpu() for x in _nearest(r, torch.arange(len(r), device=r.device), n)))


def _nearest(
    close: Float[Tensor, "some feature"], own: Int[Tensor, " some"], n: int
) -> tuple[Int[Tensor, "some n"], Float[Tensor, "some n"]]:
    """The ``n`` largest of each row, itself left out; padded with -1 and NaN."""
    close = close.scatter(1, own[:, None], -torch.inf)
    found = close.topk(min(n, close.shape[1]), dim=1)
    none = found.values == -torch.inf
    ids, values = found.indices.masked_fill(none, -1), found.values.masked_fill(none, torch.nan)
    pad = (0, n - ids.shape[1])
    return (
        torch.nn.functional.pad(ids, pad, value=-1),
        torch.nn.functional.pad(values, pad, value=torch.nan),
    )
