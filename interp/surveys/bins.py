"""Bins that widen as numbers come: exact counts without knowing the range beforehand.

Every width is a power of two and every edge a multiple of it, so two neighbouring bins make one of
double width and no count is ever divided or lost. The width that is reached depends on the least and
the greatest number alone, not on the order in which they came.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bins"]


@dataclass(frozen=True, eq=False)
class Bins:
    """Counts of numbers in bins, each line with a range of its own.

    Bin ``i`` of a line holds numbers from ``(low + i) · 2^exponent`` up to the next edge.

    Attributes:
        counts: how many numbers each bin holds.
        exponent: log2 of a line's width.
        low: which multiple of the width the first edge is.
        least, most: the smallest and the largest number; inf and -inf before there was one.
    """

    counts: Int[Tensor, "line bin"]
    exponent: Int[Tensor, " line"]
    low: Int[Tensor, " line"]
    least: Float[Tensor, " line"]
    most: Float[Tensor, " line"]

    @classmethod
    def empty(cls, lines: int, bins: int, device: torch.device) -> Bins:
        def full(value: int | float, dtype: torch.dtype, *more: int) -> Tensor:
            return torch.full((lines, *more), value, dtype=dtype, device=device)

        return cls(
            full(0, torch.int64, bins), full(-2000, torch.int64), full(0, torch.int64),
            full(torch.inf, torch.float64), full(-torch.inf, torch.float64),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def with_numbers(
        self, x: Float[Tensor, "row line"], wanted: Bool[Tensor, "row line"] | None = None
    ) -> Bins:
        """These numbers counted too; ``wanted`` leaves some out."""
        x = x.double()
        least, most = self._ends(x, wanted)
        n_bins = self.counts.shape[1]
        exponent = _fitting(least, most, n_bins)
        low = _multiple(least, exponent)
        counts = self._widened(exponent, low)
        first = torch.arange(len(low), device=x.device) * n_bins - low
        place = _multiple(x, exponent) + first
        flat = place.flatten() if wanted is None else place[wanted]
        counts = counts + flat.bincount(minlength=counts.numel()).view_as(counts)
        return Bins(counts, exponent, low, least, most)

    def _ends(self, x: Tensor, wanted: Tensor | None) -> tuple[Tensor, Tensor]:
        low, high = (x, x) if wanted is None else (
            x.masked_fill(~wanted, torch.inf), x.masked_fill(~wanted, -torch.inf)
        )  # fmt: skip
        return self.least.minimum(low.amin(0)), self.most.maximum(high.amax(0))

    def _widened(self, exponent: Tensor, low: Tensor) -> Int[Tensor, "line bin"]:
        """The counts in wider bins, which begin at another edge."""
        n_bins = self.counts.shape[1]
        own = self.low[:, None] + torch.arange(n_bins, device=low.device)
        shift = (exponent - self.exponent).clamp(0, 62)[:, None]
        place = (own >> shift) - low[:, None]
        return torch.zeros_like(self.counts).scatter_add(1, place.clamp(0, n_bins - 1), self.counts)

    @property
    def width(self) -> Float[Tensor, " line"]:
        """The width of a line's bins, in the numbers' unit."""
        return torch.ldexp(torch.ones_like(self.least), self.exponent)

    @property
    def edges(self) -> Float[Tensor, "line edge"]:
        """The edges of the bins, one more than bins."""
        steps = torch.arange(self.counts.shape[1] + 1, device=self.low.device)
        return (self.low[:, None] + steps) * self.width[:, None]

    def at_rank(self, rank: Int[Tensor, " line"]) -> Float[Tensor, " line"]:
        """About the ``rank``-th number in ascending order, from 1: within a width of the true one."""
        rank = rank.clamp(min=1)[:, None]
        up_to = self.counts.cumsum(1)
        place = (up_to < rank).sum(1, keepdim=True).clamp(max=self.counts.shape[1] - 1)
        own = self.counts.gather(1, place)
        inside = (rank - (up_to.gather(1, place) - own) - 0.5) / own.clamp(min=1)
        value = (self.low[:, None] + place + inside.clamp(0, 1)) * self.width[:, None]
        return torch.minimum(torch.maximum(value[:, 0], self.least), self.most)


def _multiple(
    x: Float[Tensor, "*row line"], exponent: Int[Tensor, " line"]
) -> Int[Tensor, "*row line"]:
    """The last edge at or below each number, as a multiple of its line's width."""
    per_unit = torch.ldexp(
        torch.ones_like(exponent, dtype=torch.float64), -exponent.clamp(min=-900)
    )
    return (x * per_unit).floor().nan_to_num(0.0, 0.0, 0.0).long()  # inf: a line that holds nothing


def _fitting(least: Tensor, most: Tensor, n_bins: int) -> Int[Tensor, " line"]:
    """log2 of the smallest width at which the range fits.

    It never falls as the range grows: at a width at which a range fits, so does any part of it.
    """
    none = least > most
    least, most = least.masked_fill(none, 0.0), most.masked_fill(none, 0.0)
    finest = _log2(torch.maximum(least.abs(), most.abs())) - 40  # edges are exact in float64
    exponent = torch.maximum(_log2((most - least) / n_bins), finest).clamp(min=-900)
    while True:
        wide = _multiple(most, exponent) - _multiple(least, exponent) >= n_bins
        if not bool(wide.any()):
            return exponent.masked_fill(none, -2000)
        exponent = exponent + wide.long()


def _log2(x: Float[Tensor, " line"]) -> Int[Tensor, " line"]:
    """⌊log2 x⌋ for x > 0, exactly."""
    return torch.frexp(x).exponent.long().masked_fill(x == 0, -2000) - 1
