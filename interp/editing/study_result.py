"""Scores of edits by fact and layer, with tracing fractions beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.editing.regressions import DESIGNS, regressions
from interp.intervals import Interval, bootstrap
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["SCORES", "LocalizationStudy"]

SCORES: Final = (
    "rewrite", "paraphrase", "neighbours_kept", "erasure", "essence_drift", "null_rewrite",
    "null_neighbours_kept",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class LocalizationStudy(Stored):
    """What :func:`interp.editing.localization_study` found.

    Scores mean what they do in :class:`interp.editing.EditScores`; nan where a cell was not run.

    Attributes:
        layers: the layers that were edited.
        subjects: one for each fact.
        variant: what was asked of the edits.
        trace: tracing fraction, 0 (restoring does nothing) to 1 (it restores the answer).
        rewrite, paraphrase, neighbours_kept, erasure, essence_drift: scores of the edits.
        null_rewrite, null_neighbours_kept: of random changes of the same norm.
    """

    layers: tuple[int, ...]
    subjects: tuple[str, ...]
    variant: str
    trace: Float[Tensor, "fact layer"]
    rewrite: Float[Tensor, "fact layer"]
    paraphrase: Float[Tensor, "fact layer"]
    neighbours_kept: Float[Tensor, "fact layer"]
    erasure: Float[Tensor, "fact layer"]
    essence_drift: Float[Tensor, "fact layer"]
    null_rewrite: Float[Tensor, "fact layer"]
    null_neighbours_kept: Float[Tensor, "fact layer"]
    provenance: Provenance

    def __repr__(self) -> str:
        done = int(self.rewrite.isfinite().sum())
        return (
            f"LocalizationStudy({self.variant}, {len(self.subjects)} facts × {len(self.layers)} "
            f"layers, {done} edits)"
        )

    def r2(self, score: str = "rewrite") -> dict[str, float]:
        """R² of a score by layer, by trace, by both, and by both with a slope for each layer.

        Raises:
            MetricError: too few edits, or scores that do not vary.
        """
        return regressions(getattr(self, score), self.trace)

    def delta_r2(self, score: str = "rewrite") -> float:
        """What tracing adds to the layer: R²(layer + trace) − R²(layer), 0 to 1."""
        found = self.r2(score)
        return found["layer + trace"] - found["layer"]

    def shuffled_r2(self, score: str = "rewrite", *, n: int = 100, seed: int = 0
                    ) -> dict[str, float]:  # fmt: skip
        """Mean R² of each design with tracing fractions shuffled among all cells: the null."""
        generator = torch.Generator().manual_seed(seed)
        flat = self.trace.flatten()
        runs = [
            regressions(
                getattr(self, score),
                flat[torch.randperm(len(flat), generator=generator)].view_as(self.trace),
            )
            for _ in range(n)
        ]
        return {name: sum(run[name] for run in runs) / n for name in DESIGNS}

    def dealt_r2(self, score: str = "rewrite", *, n: int = 100, seed: int = 0) -> dict[str, float]:
        """Mean R² of each design with the cells, score and tracing fraction together, dealt out anew.

        The null of "the layer explains it": under shuffled facts and layers the layer explains next
        to nothing, and tracing adds to it what it explains by itself.
        """
        generator = torch.Generator().manual_seed(seed)
        scores, traces = getattr(self, score).flatten(), self.trace.flatten()
        runs = []
        for _ in range(n):
            order = torch.randperm(len(traces), generator=generator)
            dealt = (x[order].view_as(self.trace) for x in (scores, traces))
            runs.append(regressions(*dealt))
        return {name: sum(run[name] for run in runs) / n for name in DESIGNS}

    def by_layer(self, score: str = "rewrite") -> Interval:
        """Mean over facts of a score (or of ``"trace"``) in each layer, with its interval."""
        values: Tensor = getattr(self, score)
        whole = values[values.isfinite().all(-1)]
        return bootstrap(whole.T)

    def edited_but_not_traced(self, *, trace: float = 0.1, rewrite: float = 0.8) -> list[int]:
        """Layers where tracing finds less than ``trace`` and edits rewrite more than ``rewrite``."""
        traced, rewritten = self.by_layer("trace").mean, self.by_layer("rewrite").mean
        found = (traced < trace) & (rewritten > rewrite)
        return [layer for layer, hit in zip(self.layers, found.tolist(), strict=True) if hit]

    def to_frame(self) -> DataFrame:
        """One row for each fact and layer."""
        import pandas as pd

        n = len(self.subjects)
        columns: dict[str, Any] = {
            "subject": [s for s in self.subjects for _ in self.layers],
            "layer": list(self.layers) * n,
        }
        return pd.DataFrame(
            columns | {name: getattr(self, name).flatten().tolist() for name in ("trace", *SCORES)}
        )

    def plot(self, score: str = "rewrite", *, title: str | None = None) -> Figure:
        """The score of each edit against its tracing fraction, and what explains it."""
        from interp.editing.study_figure import study_figure

        return study_figure(
            self, score, title or f"{self.variant}: does tracing tell where to edit?"
        )
