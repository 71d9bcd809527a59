"""Moments of rows that come in pieces, in one pass and without cancellation.

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

__all__ = ["Cross", "Moments", "summing_device"]


def summing_device(x: Tensor) -> torch.device:
    """Where float64 sums are kept: the tensor's own device, if it has float64."""
    return torch.device("cpu") if x.device.type == "mps" else x.device


def _wide(x: Float[Tensor, "row number"]) -> Float[Tensor, "row number"]:
    return x.to(summing_device(x), torch.float64)


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and summed squares around the mean of some numbers, row by row; float64."""

    count: int
    mean: Float[Tensor, " number"]
    squares: Float[Tensor, " number"]

    @classmethod
    def of(cls, x: Float[Tensor, "row number"]) -> Moments:
        """The moments of some rows, of one at least."""
        x = _wide(x)
        mean = x.mean(0)
        return cls(len(x), mean, (x - mean).square().sum(0))

    def merged(self, other: Moments) -> Moments:
        """The moments of both together."""
        n = self.count + other.count
        gap = other.mean - self.mean
        return Moments(
            n,
            self.mean + gap * (other.count / n),
            self.squares + other.squares + gap.square() * (self.count * other.count / n),
        )

    @property
    def variance(self) -> Float[Tensor, " number"]:
        """Of each number, n - 1 below; NaN of a single row."""
        return self.squares / (self.count - 1) if self.count > 1 else self.squares * torch.nan


@dataclass(frozen=True, eq=False)
class Cross:
    """Moments of two groups of numbers over the same rows, and their summed products."""

    a: Moments
    b: Moments
    products: Float[Tensor, "a b"]

    @classmethod
    def of(cls, a: Float[Tensor, "row a"], b: Float[Tensor, "row b"]) -> Cross:
        """The moments of some rows, of one at least."""
        a, b = _wide(a), _wide(b)
        first, second = Moments.of(a), Moments.of(b)
        return cls(first, second, (a - first.mean).T @ (b - second.mean))

    def merged(self, other: Cross) -> Cross:
        """The moments of both together."""
        n, m = self.a.count, other.a.count
        gap_a, gap_b = other.a.mean - self.a.mean, other.b.mean - self.b.mean
        products = torch.addr(other.products, gap_a, gap_b, alpha=n * m / (n + m))
        return Cross(self.a.merged(other.a), self.b.merged(other.b), products.add_(self.products))

    def pearson(self) -> Float[Tensor, "a b"]:
        """r of each pair, -1 to 1; NaN where one of the two is constant."""
        size = self.a.squares.sqrt()[:, None] * self.b.squares.sqrt()
        return torch.where(size > 0, self.products / size, torch.nan).clamp(-1, 1)
