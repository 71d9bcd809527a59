"""Figures of surveys: a concordance of examples, histograms, and a map of correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter

from interp.errors import ResultError
from interp.figures.labels import short
from interp.figures.style import DIVERGING, PALETTE, WIDTH, canvas, wrapped
from interp.surveys.examples_view import Passage, printable

__all__ = ["concordance", "distributions", "draw_passages"]

_FONT = 6.5
_CHARACTER = 0.602 * _FONT / 72  # inches, of the monospaced font
_LEFT, _RIGHT = 46, 26  # characters beside the middle


def concordance(passages: Sequence[Passage], *, title: str, unit: str = "activation") -> Figure:
    """One line for each passage, its own token in the middle; red is positive, blue negative."""
    width = 1.55 + (_LEFT + _RIGHT) * _CHARACTER
    with canvas(width, 0.85 + 0.19 * len(passages)) as (figure, axes):
        labels = [
            f"{p.values[p.centre]:+.2f}{'' if p.kind == 'top' else ' (drawn)'}" for p in passages
        ]
        colours = draw_passages(axes, passages, labels)
        axes.set_title(wrapped(title, width - 0.6))
        figure.colorbar(colours, ax=axes, pad=0.01, shrink=0.9).set_label(unit, fontsize=8)
    return figure


def draw_passages(axes: Axes, passages: Sequence[Passage], labels: Sequence[str]) -> ScalarMappable:
    """Passages one under the other, as :func:`concordance` has them; gives their colours."""
    top = max(abs(v) for p in passages for v in p.values) or 1.0
    colours = ScalarMappable(Normalize(-top, top), colormaps[DIVERGING])
    for line, passage in enumerate(passages):
        _line(axes, passage, line, top, colours)
    axes.set_xlim(-_LEFT, _RIGHT)
    axes.set_ylim(len(passages) - 0.4, -0.6)
    axes.set_yticks(range(len(passages)), labels, fontsize=7)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return colours


def _line(axes: Axes, passage: Passage, line: int, top: float, colours: ScalarMappable) -> None:
    words = [_cut(printable(word)) for word in passage.words]
    starts = np.cumsum([0, *(len(word) for word in words)])
    starts = starts - starts[passage.centre]
    for i, (word, value) in enumerate(zip(words, passage.values, strict=True)):
        if starts[i] < -_LEFT or starts[i] + len(word) > _RIGHT:
            continue
        own = i == passage.centre
        axes.add_patch(Rectangle(
            (starts[i], line - 0.42), len(word), 0.84, facecolor=colours.to_rgba(np.asarray(value)),
            edgecolor="#222222" if own else "none", linewidth=0.8, zorder=2 if own else 1,
        ))  # fmt: skip
        axes.text(starts[i], line, word, fontsize=_FONT, family="DejaVu Sans Mono", va="center",
                  color="white" if abs(value) > 0.62 * top else "#222222", zorder=3)  # fmt: skip


def _cut(word: str, most: int = 18) -> str:
    return word if len(word) <= most else word[: most - 1] + "…"


def distributions(
    edges: Mapping[str, np.ndarray],
    density: Mapping[str, np.ndarray],
    *,
    title: str,
    x_name: str,
    y_name: str,
    marks: Mapping[str, float] | None = None,
    tall: bool = False,
) -> Figure:
    """Steps of several histograms on one pair of axes.

    Args:
        edges: of each its bins' edges, one more than bins.
        density: of each the height of its bins.
        marks: labelled vertical lines.
        tall: a logarithmic height, for long tails.

    Raises:
        ResultError: more curves than colours.
    """
    if len(density) > len(PALETTE):
        raise ResultError(
            f"{len(density)} histograms do not fit in one figure: name at most {len(PALETTE)} of them."
        )
    with canvas(WIDTH, 3.0) as (_figure, axes):
        for colour, (name, heights) in zip(PALETTE, density.items(), strict=False):
            axes.stairs(heights, edges[name], label=short(name, 28), color=colour, linewidth=1.3)
            if len(density) == 1:
                axes.stairs(heights, edges[name], color=colour, fill=True, alpha=0.2)
        for label, value in (marks or {}).items():
            axes.axvline(value, color=PALETTE[5], linewidth=1, linestyle="--", label=label)
        if tall:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda height, _: f"{height:g}")
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))  # no mathtext
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        axes.set_title(wrapped(title, 4.2))
        if len(density) > 1 or marks:
            axes.legend(frameon=False)
    return _figure
