"""How faithfulness grows with the number of edges kept, beside a random ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.shares import gap, share, share_interval, shares_of_resamples
from interp.intervals import Interval
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["FaithfulnessCurve", "area"]


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurve(Stored):
    """f(k) = (m(C_k) - m(∅)) / (m(full) - m(∅)): C_k keeps the share k of the edges.

    Attributes:
        fractions: the k, ascending: nominal shares of the graph's edges.
        counts: how many edges C_k has; fewer than int(k·\\|E\\|) where the selection prunes.
        n_edges: \\|E\\|.
        per_prompt: m(C_k), each prompt's.
        full, empty: m(full) and m(∅), each prompt's.
        random: m of circuits of as many edges by a random ranking, means over prompts.
        selection: how edges were chosen, ``"top \\|score\\|"``, ``"top signed"`` or a name.
        method: of the scores.
        metric, unit, ablation: what was measured.
        min_gap: the least gap that may be divided by.
        provenance: model, prompts, seed, versions and the call.
    """

    fractions: tuple[float, ...]
    counts: tuple[int, ...]
    n_edges: int
    per_prompt: Float[Tensor, "k prompt"]
    full: Float[Tensor, " prompt"]
    empty: Float[Tensor, " prompt"]
    random: Float[Tensor, "draw k"]
    selection: str
    method: str
    metric: str
    unit: str
    ablation: str
    min_gap: float
    provenance: Provenance

    def __repr__(self) -> str:
        chance = f", random ranking {float(self.random_cpr.mean()):.3g}" if len(self.random) else ""
        return (
            f"FaithfulnessCurve({self.method}, {self.selection}: CPR {self.cpr:.3g}{chance}, CMD "
            f"{self.cmd:.3g}; {self.n_edges:,} edges, {self.ablation} ablation, "
            f"{len(self.full)} prompts)"
        )

    @property
    def faithfulness(self) -> Float[Tensor, " k"]:
        """f at each k: 0 the empty circuit, 1 the model, never clipped."""
        return share(self.per_prompt, self.full, self.empty, min_gap=self.min_gap)

    @property
    def cpr(self) -> float:
        """Integrated circuit performance ratio: the area under f over nominal k. Higher is better.

        Not a share of 1: from the least k to 1 it is at most 1 - k where f ≤ 1. A circuit that is
        empty up to k = .5 and whole at 1 has .25.
        """
        return area(self.faithfulness, self.fractions)

    @property
    def cmd(self) -> float:
        """Integrated circuit-model distance: the area under \\|1 - f\\|. 0 is best."""
        return area((1 - self.faithfulness).abs(), self.fractions)

    @property
    def random_faithfulness(self) -> Float[Tensor, "draw k"]:
        """f along each random ranking."""
        whole = gap(self.full, self.empty, min_gap=self.min_gap)
        return (self.random.double() - self.empty.double().mean()) / whole

    @property
    def random_cpr(self) -> Float[Tensor, " draw"]:
        """CPR of each random ranking: what a method must beat."""
        areas = [area(f, self.fractions) for f in self.random_faithfulness]
        return torch.tensor(areas, dtype=torch.float64)

    @property
    def random_cmd(self) -> Float[Tensor, " draw"]:
        """CMD of each random ranking."""
        areas = [area((1 - f).abs(), self.fractions) for f in self.random_faithfulness]
        return torch.tensor(areas, dtype=torch.float64)

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """f with its bootstrap interval over prompts, at each k."""
        return share_interval(
            self.per_prompt, self.full, self.empty, min_gap=self.min_gap, level=level, seed=seed
        )

    def cpr_interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """CPR with its bootstrap interval over prompts."""
        return self._area_interval(level, seed, distance=False)

    def cmd_interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """CMD with its bootstrap interval over prompts."""
        return self._area_interval(level, seed, distance=True)

    def _area_interval(self, level: float, seed: int, *, distance: bool) -> Interval:
        mean = torch.tensor(self.cmd if distance else self.cpr, dtype=torch.float64)
        if len(self.full) == 1:
            nan = torch.full_like(mean, torch.nan)
            return Interval(mean, nan, nan, level)
        drawn = shares_of_resamples(self.per_prompt, self.full, self.empty, n=1000, seed=seed)
        drawn = (1 - drawn).abs() if distance else drawn
        areas = torch.trapezoid(drawn, torch.tensor(self.fractions, dtype=torch.float64), dim=0)
        low, high = torch.quantile(
            areas, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        )
        return Interval(mean, low, high, level)

    def smallest(self, faithfulness: float = 0.9) -> int | None:
        """The fewest edges, of those tried, at which f reaches a value; None if none does."""
        reached = (self.faithfulness >= faithfulness).tolist()
        return next((n for n, yes in zip(self.counts, reached, strict=True) if yes), None)

    def to_frame(self) -> DataFrame:
        """One row for each k.

        ``k``, ``edges``, ``value`` (m(C_k) in ``unit``), ``faithfulness``, ``low``, ``high`` (95%
        interval over prompts), ``random`` (mean over random rankings).
        """
        import pandas as pd

        interval = self.interval()
        nothing = [float("nan")] * len(self.fractions)
        return pd.DataFrame({
            "k": list(self.fractions), "edges": list(self.counts),
            "value": self.per_prompt.double().mean(-1).tolist(),
            "faithfulness": interval.mean.tolist(), "low": interval.low.tolist(),
            "high": interval.high.tolist(),
            "random": self.random_faithfulness.mean(0).tolist() if len(self.random) else nothing,
        })  # fmt: skip

    def plot(self, *, title: str | None = None) -> Figure:
        """f over the share of edges kept (logarithmic), with its interval and random rankings."""
        from interp.circuits.curve_figure import draw

        return draw(self, title)


def area(values: Float[Tensor, " k"], fractions: tuple[float, ...]) -> float:
    """The trapezoid of a curve over its k."""
    return float(torch.trapezoid(values.double(), torch.tensor(fractions, dtype=torch.float64)))
