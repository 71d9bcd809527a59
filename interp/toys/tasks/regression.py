"""Linear regression in context: one layer of linear attention against one step of gradient descent.

A row is n points (x_i, y_i) with y_i = w·x_i + noise and a query x_q; w ~ N(0, I) is new in each row. From
w = 0, one step of gradient descent on the row's points predicts

    ŷ = x_qᵀ Γ (1/n) Σ_i y_i x_i,

and one layer of linear attention can compute exactly such a ŷ (von Oswald et al. 2022, arXiv:2212.07677).
The Γ of least loss is known: with x ~ N(0, Λ) and noise σ,

    Γ = n ((n + 1) Λ + (tr Λ + σ²) I)⁻¹,   loss = σ² + tr Λ - tr(Λ Γ Λ)

(Ahn et al. 2023, arXiv:2306.00297; Zhang, Frei & Bartlett 2023, arXiv:2306.09927; that nothing one
linear layer can do is better: Mahankali et al. 2023, arXiv:2307.03576). For Λ = I this is a step of size
n / (n + d + 1 + σ²). Ridge regression, the Bayes-optimal answer, is better still.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ToyError
from interp.toys.batch import Batch

__all__ = ["LinearRegression"]


@dataclass(frozen=True)
class LinearRegression:
    """Points of a random linear function, then a query.

    Batches: inputs [batch, n + 1, d + 1], each position (x, y) and the last (x_q, 0); targets y_q [batch];
    facts ``"w"`` [batch, d].

    Attributes:
        d: of x.
        n: points before the query.
        noise: σ, standard deviation of y around w·x.
        scales: standard deviation of each entry of x (Λ is diagonal, of their squares); None: all 1.

    Known losses (mean squares): :attr:`chance_loss` of answering 0, :attr:`one_step_loss` of one step,
    and of :meth:`ridge`, which no answer beats.

    Raises:
        ToyError: numbers out of range.
    """

    d: int = 5
    n: int = 20
    noise: float = 0.1
    scales: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        sizes = self.scales is None or (len(self.scales) == self.d and min(self.scales) > 0)
        if self.d < 1 or self.n < 1 or self.noise < 0 or not sizes:
            raise ToyError(
                f"{self}: expected d ≥ 1, n ≥ 1, noise ≥ 0, and d={self.d} scales above 0 or None."
            )

    @property
    def d_in(self) -> int:
        return self.d + 1

    @property
    def d_out(self) -> int:
        return 1

    @property
    def n_ctx(self) -> int:
        return self.n + 1

    @property
    def variances(self) -> Float[Tensor, " d"]:
        """The diagonal of Λ, in float64."""
        scales = torch.ones(self.d) if self.scales is None else torch.tensor(self.scales)
        return scales.double().square()

    @property
    def chance_loss(self) -> float:
        """Mean square of y, tr Λ + σ²: that of always answering 0."""
        return float(self.variances.sum()) + self.noise**2

    @property
    def step_size(self) -> Float[Tensor, " d"]:
        """The diagonal of the best Γ."""
        spread = self.variances
        return self.n / ((self.n + 1) * spread + spread.sum() + self.noise**2)

    @property
    def one_step_loss(self) -> float:
        """Expected squared error of :meth:`one_step`."""
        spread = self.variances
        return self.chance_loss - float((spread.square() * self.step_size).sum())

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows."""
        x = torch.randn(n, self.n + 1, self.d, generator=generator)
        x = x * self.variances.sqrt().float()
        w = torch.randn(n, self.d, generator=generator)
        noise = self.noise * torch.randn(n, self.n + 1, generator=generator)
        y = torch.einsum("n k d, n d -> n k", x, w) + noise
        shown = y.clone()
        shown[:, -1] = 0
        return Batch(torch.cat([x, shown[..., None]], -1), y[:, -1], facts={"w": w})

    def test(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows: no two have the same w."""
        return self.batch(n, generator)

    def one_step(self, batch: Batch) -> Float[Tensor, " batch"]:
        """One step of gradient descent from w = 0, of the best size: Γ (1/n) Σ y x, at the query."""
        x, y, query = self._parts(batch)
        step = torch.einsum("n k, n k d -> n d", y, x) / self.n
        return torch.einsum("n d, n d -> n", query, step * self.step_size.to(step))

    def ridge(self, batch: Batch) -> Float[Tensor, " batch"]:
        """The Bayes-optimal answer: ridge regression on the row's points with penalty σ²."""
        x, y, query = (part.double() for part in self._parts(batch))
        gram = x.mT @ x + max(self.noise**2, 1e-9) * torch.eye(self.d, device=x.device).double()
        w = torch.linalg.solve(gram, (x.mT @ y[..., None]))[..., 0]
        return torch.einsum("n d, n d -> n", query, w).to(batch.inputs)

    def _parts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        points = batch.inputs[:, :-1]
        return points[..., :-1], points[..., -1], batch.inputs[:, -1, :-1]
