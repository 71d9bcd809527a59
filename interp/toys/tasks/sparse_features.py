"""Sparse features whose frequencies fall as a power law, to be squeezed through too few dimensions.

Feature i is on with probability p_i ∝ i^-(1 + α), and has then a value uniform from 0 to 2. A network
with m < n dimensions must either leave features out (weak superposition) or let them share directions and
interfere (strong); which of both decides how its loss falls with m.

Source: Liu, Liu & Gore 2025, "Superposition yields robust neural scaling", arXiv:2505.10465; the model is
of Elhage et al. 2022, arXiv:2209.10652.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ToyError
from interp.toys.batch import Batch

__all__ = ["Superposition"]


@dataclass(frozen=True)
class Superposition:
    """Rows of sparse features that are to be given back.

    Batches: inputs [batch, n], targets the same.

    Attributes:
        n: features.
        alpha: α of p_i ∝ i^-(1 + α); -1: all alike.
        active: features that are on in a row, on average.

    Known losses (mean squares over rows and features): :attr:`chance_loss` of answering each feature's
    mean, and 0 with m ≥ n dimensions.

    Raises:
        ToyError: no features, or a probability above 1.
    """

    n: int = 200
    alpha: float = 0.0
    active: float = 1.0

    def __post_init__(self) -> None:
        if self.n < 1 or self.active <= 0:
            raise ToyError(f"{self}: expected n ≥ 1 features, of which more than 0 are on.")
        most = float(self.probabilities.max())
        if most > 1:
            raise ToyError(
                f"{self}: the first feature would be on with probability {most:.2f}; lower active "
                "(features on in a row) or alpha."
            )

    @property
    def probabilities(self) -> Float[Tensor, " n"]:
        """p_i: how often each feature is on, in float64. They sum to ``active``."""
        p = torch.arange(1, self.n + 1).double() ** -(1 + self.alpha)
        return self.active * p / p.sum()

    @property
    def chance_loss(self) -> float:
        """Mean variance of a feature, mean of 4/3 p_i - p_i²: what is lost where nothing is passed on."""
        p = self.probabilities
        return float((4 / 3 * p - p.square()).mean())

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows."""
        on = torch.rand(n, self.n, generator=generator) < self.probabilities.float()
        x = 2 * torch.rand(n, self.n, generator=generator) * on
        return Batch(x, x)

    def test(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows."""
        return self.batch(n, generator)
