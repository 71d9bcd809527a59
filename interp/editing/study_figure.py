"""Two panels: each edit's score against its tracing fraction, and R² of what might explain it."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.figure import Figure

from interp.editing.regressions import DESIGNS
from interp.editing.study_result import LocalizationStudy
from interp.figures.style import PALETTE, SEQUENTIAL, WIDTH, sheet, wrapped

__all__ = ["study_figure"]


def study_figure(study: LocalizationStudy, score: str, title: str) -> Figure:
    """Draw the figure; see :meth:`LocalizationStudy.plot`."""
    with sheet(1.45 * WIDTH, 3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        figure.suptitle(wrapped(title, 1.4 * WIDTH), fontsize=10, fontweight="bold")
        _cells(left, study, score)
        _explained(right, study, score)
    return figure


def _cells(axes: Any, study: LocalizationStudy, score: str) -> None:
    colours = matplotlib.colormaps[SEQUENTIAL]
    last = max(1, len(study.layers) - 1)
    values = getattr(study, score)
    for column, layer in enumerate(study.layers):
        axes.scatter(
            study.trace[:, column], values[:, column], s=18, alpha=0.75, linewidths=0,
            color=colours(0.92 * column / last), label=f"L{layer}",
        )  # fmt: skip
    axes.axhline(0, color="#222222", linewidth=0.6)
    axes.set_xlabel("tracing: fraction restored at the edited layer")
    axes.set_ylabel(f"{score.replace('_', ' ')} score")
    if len(study.layers) <= 12:
        axes.legend(
            title="edited layer",
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
            ncols=6,
        )


def _explained(axes: Any, study: LocalizationStudy, score: str) -> None:
    real, shuffled = study.r2(score), study.shuffled_r2(score)
    places = range(len(DESIGNS))
    axes.barh(
        [place - 0.19 for place in places], [real[name] for name in DESIGNS], height=0.36,
        color=PALETTE[0], label="tracing as measured",
    )  # fmt: skip
    axes.barh(
        [place + 0.19 for place in places], [shuffled[name] for name in DESIGNS], height=0.36,
        color="#c4c4c4", label="tracing shuffled",
    )  # fmt: skip
    for place, name in zip(places, DESIGNS, strict=True):
        axes.text(real[name] + 0.01, place - 0.19, f"{real[name]:.3f}", va="center", fontsize=7)
        axes.text(shuffled[name] + 0.01, place + 0.19, f"{shuffled[name]:.3f}", va="center", fontsize=7)  # fmt: skip
    axes.set_yticks(list(places), list(DESIGNS))
    axes.set_ylim(len(DESIGNS) - 0.5, -0.5)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    added = study.delta_r2(score)
    text = f"{added:.3f}" if added >= 5e-4 else "less than 0.001"
    axes.set_xlabel(f"R² (tracing adds {text} to the layer)")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2)
