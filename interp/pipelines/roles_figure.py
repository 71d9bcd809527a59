"""A table of roles as a figure: nodes downwards, behaviours across, the twin's furthest in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from interp.figures.paint import note, paint
from interp.figures.style import DIVERGING, canvas, wrapped

__all__ = ["role_table"]

_FONT = 8.0
_CELL = 0.78  # inches across: two numbers
_ROW = 0.24
_TURN = 35  # degrees: names of behaviours are sentences, and are not cut
_STRONGEST = 3.0  # multiples of the threshold


def role_table(
    texts: Sequence[Sequence[str]],
    ratios: Float[Tensor, "node behaviour"],
    *,
    nodes: Sequence[str],
    behaviours: Sequence[str],
    title: str,
) -> Figure:
    """Draw a text in each cell, coloured by how many times its threshold a value is.

    Args:
        texts: of each cell; "" where nothing was measured.
        ratios: values over thresholds; NaN where nothing was measured. Colours end at 3.
    """
    side = _inches(nodes)
    width = side + _CELL * len(behaviours) + 1.2
    headline = wrapped(title, width - 0.4)
    below = _inches(behaviours) * math.sin(math.radians(_TURN)) + 0.15
    height = 0.6 + 0.17 * headline.count("\n") + _ROW * len(nodes) + below
    array = ratios.clamp(-_STRONGEST, _STRONGEST).float().cpu().numpy()
    with canvas(max(width, 3.6), max(height, 1.7)) as (figure, axes):
        image = paint(
            axes, array, low=-_STRONGEST, high=_STRONGEST, colours=DIVERGING, upward=False
        )
        for i, row in enumerate(texts):
            for j, text in enumerate(row):
                dark = abs(array[i, j]) > 0.62 * _STRONGEST
                axes.text(j, i, text, ha="center", va="center", fontsize=6.5,
                          color="white" if dark else "#222222")  # fmt: skip
        axes.set_xticks(range(len(behaviours)), list(behaviours), rotation=_TURN, ha="right",
                        va="top", rotation_mode="anchor", fontsize=_FONT)  # fmt: skip
        axes.set_yticks(range(len(nodes)), list(nodes), fontsize=_FONT)
        axes.set_title(headline)
        bar = figure.colorbar(image, ax=axes, pad=0.02)
        bar.set_label("multiples of threshold", fontsize=_FONT)
        note(figure, array, "not measured")
    return figure


def _inches(labels: Sequence[str]) -> float:
    """About how wide the longest label is, uncut."""
    return max(map(len, labels)) * _FONT * 0.56 / 72
