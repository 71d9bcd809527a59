"""Labels along an axis: tokens made visible, cut, turned or thinned until none overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

__all__ = ["drop", "font_for", "put_x", "put_y", "short", "text_inches", "visible"]

_LINE = 1.15 / 72  # height of a line, in inches for each point of its font


def visible(token: str) -> str:
    """A label as a reader can see it: control characters and lone spaces made visible."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in token)
    return "␣" if shown.strip() == "" and shown else shown.strip()


def short(token: str, most: int = 16) -> str:
    """A label of at most ``most`` characters."""
    shown = visible(token)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def text_inches(labels: Sequence[str], size: float) -> float:
    """About how wide the longest label is, in inches, in a font of ``size`` points."""
    return max((len(short(label)) for label in labels), default=0) * size * 0.6 / 72


def font_for(cell: float, *, most: float, least: float = 5.4) -> float:
    """The font, in points, whose lines are as high as a cell of ``cell`` inches, within bounds."""
    return min(max(cell / _LINE, least), most)


def _turn(labels: Sequence[str], cell: float, size: float) -> tuple[int, int]:
    """By how many degrees labels turn to fit cells ``cell`` inches wide, and how many share one."""
    wide = text_inches(labels, size) + 0.05
    if wide <= cell:
        return 0, 1
    if all(label.lstrip("-").isdigit() for label in labels):
        return 0, math.ceil(wide / cell)
    return (45, 1) if cell >= 1.4 * size * _LINE else (90, math.ceil(size * _LINE / cell - 0.01))


def drop(labels: Sequence[str], cell: float, size: float) -> float:
    """The height that labels take below an axis whose cells are ``cell`` inches wide."""
    turn, _ = _turn(labels, cell, size)
    wide, line = text_inches(labels, size), size * _LINE
    return 0.05 + {0: line, 45: 0.71 * (wide + line), 90: wide}[turn]


def put_x(axes: Axes, labels: Sequence[str], cell: float, size: float) -> None:
    """Write labels under cells ``cell`` inches wide."""
    turn, every = _turn(labels, cell, size)
    axes.set_xticks(
        range(0, len(labels), every),
        [short(label) for label in labels[::every]],
        rotation=turn,
        ha="right" if turn == 45 else "center",
        va="top",
        rotation_mode="anchor" if turn == 45 else "default",
        fontsize=size,
    )


def put_y(axes: Axes, labels: Sequence[str], cell: float, size: float) -> None:
    """Write labels beside cells ``cell`` inches high."""
    every = max(1, math.ceil(size * _LINE / cell - 0.01))
    shown = [short(label) for label in labels[::every]]
    axes.set_yticks(range(0, len(labels), every), shown, fontsize=size)
