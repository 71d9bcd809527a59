"""The scores of a sweep, with both baselines and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import ResultError
from interp.intervals import Interval, bootstrap
from interp.metrics import recovered
from interp.patching.permutation import permutation_p
from interp.patching.ranking import plot_top
from interp.results import Axis, Provenance, Stored, cell_labels, pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["PatchResult"]


@dataclass(frozen=True, eq=False, repr=False)
class PatchResult(Stored):
    """What every patch did to the metric.

    Attributes:
        values: the metric's mean over prompts under each patch, in ``unit``; not a
            difference and not normalised.
        per_prompt: the same for each prompt, along a last axis.
        done: which cells were finished; the others, of an interrupted sweep, are NaN.
        axes: a name and labels for each axis of ``values``.
        clean, corrupted: both baselines, a score for each prompt; ``corrupted`` is None for
            prompts without a corrupted side.
        metric, unit: what was measured.
        direction: ``"denoise"`` (the corrupted run was edited) or ``"noise"`` (the clean run).
        engine: how it was computed: ``"replay"`` is the exact engine, ``"plain"`` one forward
            pass for each cell, with the reason where that was not asked for.
        work: positions × prompts × cells that passed a block (``block_positions``), and how many
            one forward pass for each cell takes (``plain_block_positions``).
        answers, foils: the tokens compared, as text, for the record.
        provenance: model, prompts, seed, versions and the call.
    """

    values: Float[Tensor, "*axes"]
    per_prompt: Float[Tensor, "*axes prompt"]
    done: Bool[Tensor, "*axes"]
    axes: tuple[Axis, ...]
    clean: Float[Tensor, " prompt"]
    corrupted: Float[Tensor, " prompt"] | None
    metric: str
    unit: str
    direction: str
    engine: str
    work: dict[str, int]
    answers: tuple[str, ...] | None
    foils: tuple[str, ...] | None
    provenance: Provenance

    def __repr__(self) -> str:
        axes = " × ".join(f"{axis.name} {len(axis)}" for axis in self.axes)
        axes = axes or f"one cell: {float(self.values):.3g}"
        corrupted = "" if self.corrupted is None else f", corrupted {self.corrupted.mean():.3g}"
        finished, cells = int(self.done.sum()), self.done.numel()
        part = "" if finished == cells else f"; {finished} of {cells} cells finished"
        return (
            f"PatchResult({axes}{part}; {self.metric} in {self.unit}: clean {self.clean.mean():.3g}"
            f"{corrupted}; {self._what()}, {len(self.clean)} prompts, {self.engine} engine)"
        )

    def normalized(self) -> Float[Tensor, "*axes"]:
        """Share of the gap between the baselines: 0 = corrupted, 1 = clean, never clipped.

        NaN where a cell was not finished.

        Raises:
            GapError: the baselines are too close to divide by their gap.
            ResultError: the prompts had no corrupted side.
        """
        if self.corrupted is None:
            raise ResultError(
                "there is no corrupted baseline to normalise by: these prompts had no corrupted "
                "side. Compare .values with .clean.mean() instead."
            )
        return recovered(self.per_prompt, self.clean, self.corrupted)

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Bootstrap interval over prompts of ``values``, for each cell; NaN where unfinished."""
        return bootstrap(self.per_prompt, level=level, seed=seed)

    def p_value(self, null: PatchResult) -> float:
        """How often a random set (``interp.random_ablation``) moves the metric at least as far.

        A permutation p-value of a result of one cell, never 0 (Phipson & Smyth 2010).

        Raises:
            ResultError: several cells, unfinished ones, or results that cannot be compared.
        """
        return permutation_p(self, null)

    def top(self, n: int = 10) -> DataFrame:
        """The ``n`` finished cells which moved the metric furthest from the run that was edited."""
        frame = self.to_frame()[self.done.flatten().tolist()]
        order = frame["effect"].abs().sort_values(ascending=False, kind="stable").index
        return frame.loc[order[:n]].reset_index(drop=True)

    def to_frame(self) -> DataFrame:
        """One row for each cell: its labels, ``value``, ``effect``, ``low``, ``high``.

        ``effect`` is the value less the baseline of the edited run, in ``unit``; ``low`` and
        ``high`` bound the value (95% bootstrap over prompts). ``normalized`` is added where
        both baselines exist and differ. Cells that were not finished have a row of NaN.
        """
        import pandas as pd

        columns: dict[str, Any] = dict(cell_labels(self.axes))
        interval = self.interval()
        columns["value"] = self.values.flatten().tolist()
        columns["effect"] = (self.values - self._edited().mean()).flatten().tolist()
        columns["low"], columns["high"] = (
            bound.flatten().tolist() for bound in (interval.low, interval.high)
        )
        if self._has_gap():
            columns["normalized"] = self.normalized().flatten().tolist()
        return pd.DataFrame(columns)

    def _edited(self) -> Float[Tensor, " prompt"]:
        """The baseline of the run that was edited."""
        baseline = self.clean if self.direction == "noise" else self.corrupted
        assert baseline is not None  # the corrupted run cannot be edited where there is none
        return baseline

    def _has_gap(self) -> bool:
        gap = None if self.corrupted is None else self.clean.mean() - self.corrupted.mean()
        return gap is not None and float(gap.abs()) >= 1e-3

    def plot(self, *, title: str | None = None, panel: str | None = None) -> Figure:
        """Panels (three axes), a heat map (two axes) or bars (one axis); grey cells were not run.

        Normalised where both baselines exist, else the effect in the metric's unit. ``panel``
        names which of three axes makes the panels; None: the first.

        Raises:
            ResultError: more axes than a figure can show; select with :meth:`select`.
        """
        from interp.figures import grid

        shown, unit = self._shown()
        axes = {axis.name: axis.labels for axis in self.axes}
        return grid(shown, axes, title=title or self._title(), unit=unit, panel=panel)

    def plot_top(self, k: int = 10, *, title: str | None = None) -> Figure:
        """Bars of the ``k`` cells which moved the metric furthest from the run that was edited.

        Whiskers are 95% bootstrap intervals of the change, over prompts.
        """
        effects = self.per_prompt - self._edited()
        unit = f"change of {self.metric} ({self.unit})"
        sites = self.provenance.call.get("sites", "")
        return plot_top(effects, self.axes, sites, k=k, title=title or self._title(), unit=unit)

    def _title(self) -> str:
        sites = self.provenance.call.get("sites", "patch")
        return f"{sites if isinstance(sites, str) else ', '.join(sites)}, {self._what()}"

    def _what(self) -> str:
        """What was put into which run."""
        source = str(self.provenance.call.get("source") or "").split(" ")[0]
        other, run = (
            ("clean", "corrupted") if self.direction == "denoise" else ("corrupted", "clean")
        )
        return f"{source or other} → {run}"

    def _shown(self) -> tuple[Tensor, str]:
        if self._has_gap():
            return self.normalized(), f"{self.metric} recovered (0 corrupted, 1 clean)"
        return self.values - self._edited().mean(), f"change of {self.metric} ({self.unit})"

    def select(self, **labels: int | str) -> PatchResult:
        """The result at one label of some axes: ``result.select(layer=3)``."""
        index, axes = pick(self.axes, labels)
        parts = {"values": self.values, "per_prompt": self.per_prompt, "done": self.done}
        parts = {name: tensor[index] for name, tensor in parts.items()}
        return PatchResult(**{**vars(self), **parts, "axes": axes})
