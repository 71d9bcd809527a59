"""What survives of the letter logit difference on low-rank queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.results import Axis, Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["LowRank"]

#: A part whose whole removal costs less than this share of the score has nothing to keep.
_LEAST = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class LowRank(Stored):
    """Scores with some heads' queries, keys or values in a subspace.

    Attributes:
        axes: ``part`` (``"q"``, ``"qkv"``, ...) and ``rank``, of which the first is 0.
        per_prompt: the letter logit difference, right minus mean of the others, in logits.
        complement: the mean score with *everything but* the first ``rank`` directions, without rank 0.
        random: the mean score in random subspaces of each rank, without rank 0.
        clean: the score of the model as it is.
        provenance: model, prompts, heads, seed, versions and the call.
    """

    axes: tuple[Axis, ...]
    per_prompt: Float[Tensor, "part rank prompt"]
    complement: Float[Tensor, "part rank_above_0"]
    random: Float[Tensor, "part rank_above_0 draw"]
    clean: Float[Tensor, " prompt"]
    provenance: Provenance

    def __repr__(self) -> str:
        parts = ", ".join(self.axes[0].labels)
        return (
            f"LowRank({parts}; ranks {', '.join(self.axes[1].labels)}; {len(self.clean)} prompts, clean "
            f"{float(self.clean.mean()):.3g} logits)"
        )

    def share(self, part: str, rank: int) -> float:
        """The share of the part's effect that a subspace keeps: 0 nothing, 1 all.

        NaN where removing the part altogether costs less than 5% of the score: there is nothing to
        keep.
        """
        row, column = self._at(part, rank)
        return float(self._share(self.per_prompt.mean(-1)[row, column], row))

    def random_shares(self, part: str, rank: int) -> list[float]:
        """The same of each random subspace of that rank."""
        row, column = self._at(part, rank)
        return self._share(self.random[row, column - 1], row).tolist() if column else []

    def complement_share(self, part: str, rank: int) -> float:
        """The same of everything but the subspace; at rank 0 that is all there is."""
        row, column = self._at(part, rank)
        score = self.complement[row, column - 1] if column else self.clean.mean()
        return float(self._share(score, row))

    def _at(self, part: str, rank: int) -> tuple[int, int]:
        for axis, label in zip(self.axes, (part, str(rank)), strict=True):
            if label not in axis.labels:
                raise ResultError(
                    f"{axis.name}={label!r} was not measured; nearest: {nearest(label, axis.labels)}."
                )
        return self.axes[0].labels.index(part), self.axes[1].labels.index(str(rank))

    def _share(self, score: Tensor, row: int) -> Tensor:
        nothing, clean = self.per_prompt[row, 0].mean(), self.clean.mean()
        gap = clean - nothing
        if gap.abs() < _LEAST * clean.abs():
            return torch.full_like(score, torch.nan)
        return (score - nothing) / gap

    def to_frame(self) -> DataFrame:
        """One row for each part and rank.

        Columns: ``part``, ``rank``, ``score`` (logits), ``share``, ``complement`` and the mean,
        lowest and highest share of random subspaces.
        """
        import pandas as pd

        rows = []
        for part in self.axes[0].labels:
            for label in self.axes[1].labels:
                rank = int(label)
                row, column = self._at(part, rank)
                random = self.random_shares(part, rank)
                known = random or [float("nan")]
                rows.append({
                    "part": part, "rank": rank, "score": float(self.per_prompt[row, column].mean()),
                    "share": self.share(part, rank),
                    "complement": self.complement_share(part, rank),
                    "random": sum(known) / len(known), "random_low": min(known),
                    "random_high": max(known),
                })  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, *, title: str | None = None) -> Figure:
        """Shares over ranks, a curve for each part; random subspaces of the last part as a band."""
        from interp.figures.lines import lines

        ranks = [int(label) for label in self.axes[1].labels]
        curves = {part: [self.share(part, r) for r in ranks] for part in self.axes[0].labels}
        curves = {part: values for part, values in curves.items() if values[-1] == values[-1]}
        last = self.axes[0].labels[-1]
        draws = [self.random_shares(last, r) or [0.0] for r in ranks]
        bands = {}
        if self.random.shape[-1] and last in curves:
            name = f"random subspace, {last}"
            curves[name] = [sum(d) / len(d) for d in draws]
            bands[name] = ([min(d) for d in draws], [max(d) for d in draws])
        return lines(
            [str(r) for r in ranks], curves, bands=bands, x_name="rank of the subspace",
            y_name="share of the effect kept",
            title=title or f"What low-rank heads keep in {self.provenance.model}",
        )  # fmt: skip
