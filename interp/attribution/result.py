"""What each patch of a sweep is estimated to do, with both baselines and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from interp.intervals import Interval, bootstrap
from interp.patching.ranking import plot_top
from interp.results import Axis, Provenance, Stored, cell_labels, pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["AttributionResult", "sites_of"]


@dataclass(frozen=True, eq=False, repr=False)
class AttributionResult(Stored):
    """The estimated effect of every patch on the metric.

    Attributes:
        values: the mean over prompts of the estimated change of the metric, in ``unit``, against
            the run that the patch would edit. Positive: the patch raises the metric. 0: it does
            nothing. Unsigned for ``method="atp*"``.
        per_prompt: the same for each prompt, along a last axis.
        axes: a name and labels for each axis of ``values``, as those of ``interp.patch``.
        clean, corrupted: both baselines, a score for each prompt; ``corrupted`` is None for
            prompts without a corrupted side.
        metric, unit: what was measured.
        direction: ``"denoise"`` (the corrupted run would be edited) or ``"noise"`` (the clean run).
        method: ``"gradient"``, ``"integrated"``, ``"atp-qk"`` or ``"atp*"``.
        answers, foils: the tokens compared, as text, for the record.
        provenance: model, prompts, seed, versions and the call.
    """

    values: Float[Tensor, "*axes"]
    per_prompt: Float[Tensor, "*axes prompt"]
    axes: tuple[Axis, ...]
    clean: Float[Tensor, " prompt"]
    corrupted: Float[Tensor, " prompt"] | None
    metric: str
    unit: str
    direction: str
    method: str
    answers: tuple[str, ...] | None
    foils: tuple[str, ...] | None
    provenance: Provenance

    def __repr__(self) -> str:
        axes = " × ".join(f"{axis.name} {len(axis)}" for axis in self.axes) or "one cell"
        corrupted = "" if self.corrupted is None else f", corrupted {self.corrupted.mean():.3g}"
        return (
            f"AttributionResult({axes}; {self.what}: clean {self.clean.mean():.3g}{corrupted}; "
            f"{self.direction}, {len(self.clean)} prompts, {self.method})"
        )

    @property
    def signed(self) -> bool:
        """Whether values have a sign; GradDrop averages absolute values."""
        return self.method != "atp*"

    @property
    def what(self) -> str:
        """What the values are, with their unit."""
        word = "estimated change" if self.signed else "estimated size of change"
        return f"{word} of {self.metric} ({self.unit}{'' if self.signed else ', unsigned'})"

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Bootstrap interval over prompts of ``values``: not of the estimate's own error."""
        return bootstrap(self.per_prompt, level=level, seed=seed)

    def top(self, n: int = 10) -> DataFrame:
        """The ``n`` cells whose patches are estimated to move the metric furthest."""
        frame = self.to_frame()
        order = frame["effect"].abs().sort_values(ascending=False, kind="stable").index
        return frame.loc[order[:n]].reset_index(drop=True)

    def to_frame(self) -> DataFrame:
        """One row for each cell: its labels, ``effect``, ``low``, ``high`` (over prompts, 95%)."""
        import pandas as pd

        interval = self.interval()
        columns: dict[str, Any] = dict(cell_labels(self.axes))
        columns["effect"] = self.values.flatten().tolist()
        columns["low"] = interval.low.flatten().tolist()
        columns["high"] = interval.high.flatten().tolist()
        return pd.DataFrame(columns)

    def plot(self, *, title: str | None = None, panel: str | None = None) -> Figure:
        """Panels (three axes), a heat map (two) or bars (one), centred at zero unless unsigned.

        ``panel`` names which of three axes makes the panels; None: the first.

        Raises:
            ResultError: more axes than a figure can show; select with :meth:`select`.
        """
        from interp.figures import grid

        axes = {axis.name: axis.labels for axis in self.axes}
        return grid(self.values, axes, title=title or self._title(), unit=self.what,
                    signed=self.signed, panel=panel)  # fmt: skip

    def plot_top(self, k: int = 10, *, title: str | None = None) -> Figure:
        """Bars of the ``k`` cells whose patches are estimated to move the metric furthest.

        Whiskers are 95% bootstrap intervals over prompts: not of the estimate's own error.
        """
        sites = self.provenance.call.get("sites", "")
        return plot_top(self.per_prompt, self.axes, sites, k=k, title=title or self._title(),
                        unit=self.what)  # fmt: skip

    def _title(self) -> str:
        call = self.provenance.call
        run, other = "corrupted", "clean"
        if self.direction == "noise":
            run, other = other, run
        source = str(call.get("source") or other).split(" ")[0]
        return f"{sites_of(self.provenance)}, {source} → {run}, {self.method}"

    def select(self, **labels: int | str) -> AttributionResult:
        """The result at one label of some axes: ``result.select(layer=3)``."""
        index, axes = pick(self.axes, labels)
        parts = {"values": self.values[index], "per_prompt": self.per_prompt[index]}
        return AttributionResult(**{**vars(self), **parts, "axes": axes})


def sites_of(provenance: Provenance) -> str:
    """The sites of a sweep as one text."""
    sites = provenance.call.get("sites", "cells")
    return sites if isinstance(sites, str) else ", ".join(sites)
