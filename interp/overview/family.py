"""A family of measurements, and which of them random contexts do not explain.

Each cell of a family (a head, a position, ...) is measured on the prompt and on every random
context. Its ``t`` is its distance from the contexts' mean in their standard deviation, which is
shrunk half-way to the family's (a cell that never moves would have any t). Because a family has many
cells, a cell's ``p`` is the share of contexts in which *some* cell goes as far as this one (the
largest |t| of the family, each context against the others): 5% is the chance that a family shows
anything at all where there is nothing.

Source: Westfall & Young 1993, Resampling-Based Multiple Testing (single-step max-t); Tusher et al.
2001 (a floor on the standard deviation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["LEVEL", "Family"]

#: The chance, for each family, that it shows anything where there is nothing.
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of measurement on all of its cells.

    Attributes:
        name: what was measured, in a word.
        unit: of the scores.
        cells: a label for each cell.
        score: on the prompt.
        contexts: on each random context.
        twin: the largest |score - contexts' mean| of any cell of the untrained twin; None
            where no twin was run.
    """

    name: str
    unit: str
    cells: tuple[str, ...]
    score: Float[Tensor, " cell"]
    contexts: Float[Tensor, "cell draw"]
    twin: float | None = None

    @property
    def mean(self) -> Float[Tensor, " cell"]:
        """What random contexts give on average."""
        return self.contexts.mean(-1)

    @property
    def excess(self) -> Float[Tensor, " cell"]:
        """What the prompt has beyond them, in ``unit``."""
        return self.score - self.mean

    def t(self) -> Float[Tensor, " cell"]:
        """The excess in (shrunk) standard deviations of the contexts."""
        return self.excess / self._deviation()

    def p(self) -> Float[Tensor, " cell"]:
        """The share of contexts in which some cell goes this far; at least 1 / (1 + draws)."""
        draws = self.contexts.shape[-1]
        others = (draws * self.mean[:, None] - self.contexts) / (draws - 1)
        extremes = ((self.contexts - others) / self._deviation()[:, None]).abs().amax(0)
        beyond = (extremes >= self.t().abs()[:, None]).sum(-1)
        return (1 + beyond).double() / (1 + draws)

    def survives(self) -> Bool[Tensor, " cell"]:
        """p at most :data:`LEVEL`, and an excess beyond anything that the untrained twin shows."""
        rare = self.p() <= LEVEL
        return rare if self.twin is None else rare & (self.excess.abs() > self.twin)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each cell."""
        parts = (self.score, self.mean, self.contexts.std(-1), self.t(), self.p(), self.survives())
        return [
            {
                "family": self.name, "cell": cell, "score": score, "unit": self.unit,
                "contexts": mean, "contexts_std": std, "t": t, "p": p, "twin": self.twin,
                "survives": survives,
            }
            for cell, score, mean, std, t, p, survives in zip(
                self.cells, *(part.tolist() for part in parts), strict=True
            )
        ]  # fmt: skip

    def _deviation(self) -> Float[Tensor, " cell"]:
        own = self.contexts.std(-1)
        pooled = own.square().mean()
        least = 1e-6 * self.score.abs().max() + 1e-12
        return ((own.square() + pooled) / 2).sqrt().clamp(min=float(least))
