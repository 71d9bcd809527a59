"""Curves over layers (or steps), each with its name, bands for intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from interp.figures.labels import put_x
from interp.figures.style import PALETTE, canvas, wrapped

__all__ = ["lines"]

_WIDEST = 7.0  # inches


def lines(
    x: Sequence[str],
    curves: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_name: str,
    y_name: str,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    bottom: float | None = None,
    beside: bool = False,
) -> Figure:
    """Draw curves over named steps; ``bands`` gives (low, high) for some of them.

    ``beside`` puts their names to the right, where many of them would hide the curves.
    """
    names = 0.45 + 0.065 * max(map(len, curves), default=0) if beside else 0.0
    width = min(max(4.2, 0.42 * len(x) + 2.4) + names, _WIDEST)
    with canvas(width, 2.9) as (figure, axes):
        steps = range(len(x))
        for i, (label, values) in enumerate(curves.items()):
            axes.plot(steps, list(values), marker="o", markersize=4, label=label, color=PALETTE[i])
            if bands and label in bands:
                low, high = bands[label]
                axes.fill_between(steps, list(low), list(high), color=PALETTE[i], alpha=0.15)
        put_x(axes, list(x), (width - names - 1.0) / len(x), 8.0)
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        axes.set_title(wrapped(title, width - names))
        axes.set_ylim(bottom=bottom)
        if beside:
            figure.legend(loc="outside right center", frameon=False)
        elif len(curves) > 1:
            axes.legend(frameon=False)
    return figure
