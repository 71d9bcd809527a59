"""Mean and variance of rows that come in pieces, in one pass and without cancellation.

Activations may have a mean of 10⁴ and a spread of 10⁻³. Sums of squares in float32 would say
nothing about the spread, so each piece is centred on its own mean in float64, and pieces are merged
by the difference of their means::

    M₂(A∪B) = M₂(A) + M₂(B) + (mean_B - mean_A)² n_A n_B / (n_A + n_B)

Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["BINS", "LOWEST", "PER_OCTAVE", "Moments", "RowMoments"]

PER_OCTAVE = 8
LOWEST = -64  # norms below 2^-64, zero among them, share the first bin
BINS = 128 * PER_OCTAVE


class Moments:
    """Count, mean and summed squares of rows that come in pieces; all in float64.

    Args:
        d: coordinates of a row.
        covariance: sum the products of all pairs of coordinates too, d × d numbers.
    """

    def __init__(self, d: int, *, covariance: bool = False) -> None:
        self.count = 0
        self.mean = torch.zeros(d, dtype=torch.float64)
        self.squares = torch.zeros((d, d) if covariance else d, dtype=torch.float64)

    def add(self, x: Float[Tensor, "row d"]) -> None:
        """Take in some rows."""
        if not len(x):
            return
        x = x.double()
        mean = x.mean(0)
        x = x - mean
        shift = mean - self.mean
        total = self.count + len(x)
        weight = self.count * len(x) / total
        if self.squares.ndim == 2:
            self.squares.addmm_(x.T, x).addr_(shift, shift, alpha=weight)
        else:
            self.squares += x.square().sum(0) + shift.square() * weight
        self.mean += shift * (len(x) / total)
        self.count = total

    @property
    def variance(self) -> Float[Tensor, " d"]:
        """Of each coordinate, n - 1 below."""
        squares = self.squares.diagonal() if self.squares.ndim == 2 else self.squares
        return squares / (self.count - 1) if self.count > 1 else torch.full_like(squares, torch.nan)


@dataclass(eq=False, repr=False)
class RowMoments:
    """What is counted at one site while rows come by."""

    rows: Moments
    norms: Moments
    norm_max: Tensor
    histogram: Tensor

    @classmethod
    def of(cls, d: int, *, covariance: bool) -> RowMoments:
        none = torch.zeros((), dtype=torch.float64)
        return cls(Moments(d, covariance=covariance), Moments(1), none, torch.zeros(BINS).long())

    def add(self, x: Float[Tensor, "row d"]) -> None:
        x = x.double()
        self.rows.add(x)
        norms = x.norm(dim=-1)
        self.norms.add(norms[:, None])
        self.norm_max = torch.maximum(self.norm_max, norms.max())
        bins = ((norms.log2() - LOWEST) * PER_OCTAVE).clamp(0, BINS - 1).long()
        self.histogram += torch.bincount(bins, minlength=BINS)
