"""Stability as a figure: over draws of prompts, between methods, between ablations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp.figures.paint import paint
from interp.figures.style import DIVERGING, PALETTE, sheet, wrapped

if TYPE_CHECKING:
    from interp.discovery.stability_result import StabilityResult

__all__ = ["draw"]

_GREY, _INK = "#9aa5ae", "#222222"


def draw(found: StabilityResult, title: str | None) -> Figure:
    """Left Jaccard indices of pairs of draws; then rank correlations and Jaccard indices."""
    rows = len(found.methods) * len(found.ablations)
    with sheet(9.6, max(3.2, 1.7 + 0.3 * rows)) as figure:
        figure.get_layout_engine().set(w_pad=0.08)  # type: ignore[union-attr,call-arg]
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
        for axes in (left, middle, right):
            axes.tick_params(labelsize=7.5)
        _draws(left, found)
        image = _matrix(middle, found, "methods")
        _matrix(right, found, "ablations")
        bar = figure.colorbar(image, ax=(middle, right), shrink=0.85, pad=0.02)
        bar.set_label("rank correlation of |score| (J: Jaccard index)", fontsize=7.5)
        bar.ax.tick_params(labelsize=7)
        figure.suptitle(wrapped(title or _title(found), 9.0), fontsize=10, fontweight="bold")
        figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=7.5, ncols=3,
                      loc="outside lower left")  # fmt: skip
    return figure


def _title(found: StabilityResult) -> str:
    total = found.scores.shape[-1]
    return (
        f"How stable are the top {found.n} of {total:,} edges? {found.provenance.model}, "
        f"{found.metric}, {len(found.seeds)} draws of {found.n_prompts} prompts"
    )


def _draws(axes: Axes, found: StabilityResult) -> None:
    jitter = np.random.default_rng(0)
    names: list[str] = []
    for i, method in enumerate(found.methods):
        for k, ablation in enumerate(found.ablations):
            place = len(names)
            names.append(f"{method}, {ablation}")
            own = found.jaccard(method, ablation).numpy()
            _cloud(axes, own, place - 0.13, jitter, PALETTE[0], "model", first=not place)
            if found.twin is not None and not k:
                twin = found.jaccard(method, ablation, twin=True).numpy()
                _cloud(axes, twin, place + 0.17, jitter, PALETTE[3], "untrained twin", first=not i)
    axes.axvline(found.chance, color=_INK, linewidth=0.9, linestyle="--",
                 label=f"chance, {found.chance:.2f}")  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Jaccard index of two draws' circuits (1 the same)", fontsize=8)
    axes.set_title("other prompts", fontsize=9)


def _cloud(
    axes: Axes, values: np.ndarray, place: float, jitter: np.random.Generator, colour: str,
    label: str, *, first: bool,
) -> None:  # fmt: skip
    """Every pair as a dot, their mean as a bar."""
    y = place + jitter.uniform(-0.06, 0.06, len(values))
    axes.plot(values, y, "o", color=colour, markersize=3, alpha=0.55, linestyle="none")
    axes.plot([values.mean()], [place], "|", color=colour, markersize=13, markeredgewidth=2.2,
              label=label if first else None)  # fmt: skip


def _matrix(axes: Axes, found: StabilityResult, over: str) -> Any:
    rank, same = (one.numpy() for one in found.agreement(over))
    names = found.methods if over == "methods" else found.ablations
    image = paint(axes, rank, low=-1.0, high=1.0, colours=DIVERGING, upward=False)
    for (row, column), value in np.ndenumerate(rank):
        dark = abs(value) > 0.62
        axes.text(column, row, f"{value:.2f}\nJ {same[row, column]:.2f}", ha="center", va="center",
                  fontsize=7, color="white" if dark else _INK)  # fmt: skip
    shown = [name.replace("eap-ig-activations", "eap-ig-act") for name in names]
    axes.set_xticks(range(len(names)), shown, fontsize=7, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), shown, fontsize=7)
    fixed = found.ablations[0] if over == "methods" else found.methods[0]
    axes.set_title(f"other {over} ({fixed})", fontsize=9)
    return image
