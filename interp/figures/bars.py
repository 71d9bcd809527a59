"""Ranked bars with a reference line: which cells are strongest, and against what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from interp.figures.style import PALETTE, WIDTH, canvas, wrapped

__all__ = ["bars"]


def bars(
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    unit: str,
    lines: Mapping[str, float] | None = None,
    beside: bool = False,
) -> Figure:
    """Horizontal bars, the first name on top; one colour for each series.

    Args:
        series: values for each name, in ``unit``; several are drawn side by side. In place of
            NaN stands "not run".
        lines: labelled vertical lines, such as a baseline or a threshold.
        beside: put the names of the series to the right, where bars leave them no room.
    """
    count = len(series)
    with canvas(WIDTH, max(1.8, 0.9 + 0.24 * len(names) * max(1, 0.7 * count))) as (figure, axes):
        thickness = 0.8 / count
        for i, (label, values) in enumerate(series.items()):
            places = [row + (i - (count - 1) / 2) * thickness for row in range(len(names))]
            axes.barh(places, list(values), height=thickness * 0.92, label=label, color=PALETTE[i])
            for place, value in zip(places, values, strict=True):
                if value != value:
                    axes.text(0, place, " not run", va="center", fontsize=7, color="#7a7a7a")
        axes.set_yticks(range(len(names)), list(names))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.axvline(0, color="#222222", linewidth=0.8)
        for label, value in (lines or {}).items():
            axes.axvline(value, color=PALETTE[5], linewidth=1, linestyle="--", label=label)
        axes.set_xlabel(unit)
        axes.set_title(wrapped(title, 4.6))
        if beside:
            figure.legend(loc="outside right center", frameon=False)
        elif count > 1 or lines:
            axes.legend(loc="best", frameon=False)
    return figure
