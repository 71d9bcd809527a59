"""Curves over numbers (steps of training, sizes), with a band over seeds and reference lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from interp.figures.style import PALETTE, WIDTH, canvas, wrapped

__all__ = ["curves"]

_DASHES: Any = ("-", "--", ":", "-.")


def curves(
    x: Sequence[float] | Mapping[str, Sequence[float]],
    values: Mapping[str, Sequence[float] | Sequence[Sequence[float]]],
    *,
    title: str,
    y_name: str,
    x_name: str = "steps of training",
    lines: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    bottom: float | None = None,
    top: float | None = None,
    height: float = 2.9,
) -> Figure:
    """Draw named curves.

    Args:
        x: of all curves, or of each by its name.
        values: of each curve; rows of several seeds are drawn as thin lines, and their mean as a thick one
            if all rows are of one length.
        lines: labelled horizontal lines: chance, a threshold.
        log_x, log_y: logarithmic axes.
        bottom, top: ends of the y axis.
    """
    with canvas(WIDTH, height) as (figure, axes):
        for i, (label, given) in enumerate(values.items()):
            steps = list(x[label] if isinstance(x, Mapping) else x)
            look: dict[str, Any] = {
                "color": PALETTE[i % len(PALETTE)], "linestyle": _DASHES[i // len(PALETTE) % 4],
            }  # fmt: skip
            rows = _rows(given)
            if len(rows) > 1:
                for row in rows:
                    axes.plot(steps[: len(row)], row, linewidth=0.7, alpha=0.45, **look)
            shortest = min(map(len, rows))
            mean = [sum(row[k] for row in rows) / len(rows) for k in range(shortest)]
            axes.plot(steps[:shortest], mean, linewidth=1.6, label=label, **look)
        for i, (label, value) in enumerate((lines or {}).items()):
            axes.axhline(value, color="#7a7a7a", linewidth=0.9, linestyle=_DASHES[1 + i % 3])
            axes.annotate(label, (1.0, value), xycoords=("axes fraction", "data"), fontsize=7,
                          ha="right", va="bottom", color="#5a5a5a")  # fmt: skip
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        axes.set_ylim(bottom=bottom, top=top)
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        axes.set_title(wrapped(title, WIDTH))
        if len(values) > 1:
            axes.legend(frameon=False, ncols=1 if len(values) < 7 else 2)
    return figure


def _rows(given: Any) -> list[list[float]]:
    """One row for each seed, or the only one."""
    nested = len(given) > 0 and hasattr(given[0], "__len__")
    return [list(row) for row in given] if nested else [list(given)]
