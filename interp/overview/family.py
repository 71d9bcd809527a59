"""A family of measurements, and which of them random contexts do not explain.

Each cell of a family (a head, a position, ...) is measured on the prompt and on every random
context. Its ``t`` is its distance from the contexts' mean in their standard deviation, which is
shrunk half-way to the family's (a cell that never moves would have any t). Because a family has many
cells, a cell's ``p`` is the share of contexts in which *some* cell goes as far as this one (the
largest |t| of the family). Each context's t is taken in the same way, against all other rows and
the prompt's among them: if the prompt is one more random context, its largest |t| is as likely to
stand at any rank, however the cells are distributed, and 5% is the chance that a family shows
anything at all.

Source: Westfall & Young 1993, Resampling-Based Multiple Testing (single-step max-t); Tusher et al.
2001 (a floor on the standard deviation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
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
        return self._t()[:, 0].to(self.score)

    def p(self) -> Float[Tensor, " cell"]:
        """The share of contexts in which some cell goes this far; at least 1 / (1 + draws)."""
        t = self._t().abs()
        beyond = (t[:, 1:].amax(0) >= t[:, :1] * (1 - 1e-9)).sum(-1)  # ties count, but for rounding
        return (1 + beyond).double() / (1 + self.contexts.shape[-1])

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

    def _t(self) -> Float[Tensor, "cell row"]:
        """Each row against all others, the prompt in row 0."""
        rows = torch.cat([self.score[:, None], self.contexts], -1).double()
        n, least = rows.shape[-1], 1e-6 * float(rows.abs().max()) + 1e-12
        rows = rows - rows.mean(-1, keepdim=True)
        beyond = rows * n / (n - 1)  # less the mean of the others
        squares = rows.square().sum(-1, keepdim=True) - rows * beyond  # about that mean
        variance = squares.clamp(min=0) / (n - 2)
        return beyond / ((variance + variance.mean(0)) / 2).sqrt().clamp(min=least)
