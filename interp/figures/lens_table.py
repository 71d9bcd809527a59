"""What each layer would say: the top token in each cell, its probability as the colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from interp.errors import ResultError
from interp.figures.labels import drop, font_for, put_x, put_y, short, text_inches
from interp.figures.paint import largest, paint
from interp.figures.style import SEQUENTIAL, WIDTH, sheet, wrapped

__all__ = ["lens_table"]

_FONT = 6.5
_CELL = 0.56  # inches: a short word
_TALLEST = 8.5  # inches, a page
_CHARACTERS = 12


def lens_table(
    tokens: Sequence[Sequence[str]],
    values: Float[Tensor, "layer pos"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    unit: str = "probability of the top token",
    high: float | None = 1.0,
) -> Figure:
    """Draw a table of tokens, the first layer at the bottom, coloured by ``values`` from 0 up.

    A prompt too long for a line goes on in the next, as text does; of one too long for a page,
    the last tokens are drawn, and the title says so.

    Args:
        high: the value of the strongest colour; None: the largest.

    Raises:
        ResultError: more rows than a page can hold.
    """
    array = values.detach().float().cpu().numpy()
    n_rows, n_columns = array.shape
    margins = 1.15 + text_inches(rows, _FONT)
    across = min(n_columns, int((WIDTH - margins) / _CELL))
    line = min(0.2, max(0.115, 6.9 / n_rows))
    below = drop([short(c) for c in columns], _CELL, _FONT)
    band = n_rows * line + below + 0.1
    if n_rows * line > 7.5:
        raise ResultError(
            f"{n_rows} rows of a lens do not fit on a page: read fewer sites, such as "
            "sites='L3.H*.result'."
        )
    bands = min(math.ceil(n_columns / across), max(1, int((_TALLEST - 0.7) / band)))
    first = max(0, n_columns - bands * across)
    if first:
        title += f" (last {n_columns - first} of {n_columns} tokens)"
    width = max(3.6, margins + across * _CELL)
    top = largest(array[:, first:], high)
    with sheet(width, 0.75 + bands * band) as figure:
        grid = figure.subplots(bands, 1, squeeze=False)[:, 0]
        for i, axes in enumerate(grid):
            part = slice(first + i * across, min(first + (i + 1) * across, n_columns))
            image = _band(axes, array[:, part], [list(row[part]) for row in tokens], top, across)
            put_x(axes, columns[part], _CELL, _FONT)
            put_y(axes, rows, line, font_for(line, most=_FONT + 0.5))
        grid[-1].set_xlabel("input token")
        grid[0].set_title(wrapped(title, width - 1.0))
        bar = figure.colorbar(image, ax=list(grid), shrink=min(1.0, 3.0 / (bands * band)), pad=0.02)
        bar.set_label(wrapped(unit, min(bands * band, 3.0), per_inch=9.0), fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def _band(
    axes: Axes, array: np.ndarray, tokens: Sequence[Sequence[str]], top: float, across: int
) -> AxesImage:
    """Some columns of the table, each as wide as in a full line."""
    image = paint(axes, array, low=0.0, high=top, colours=SEQUENTIAL)
    axes.set_xlim(-0.5, across - 0.5)
    for (row, column), value in np.ndenumerate(array):
        word = short(tokens[row][column], _CHARACTERS)
        size = min(_FONT, 72 * (_CELL - 0.06) / (0.6 * max(1, len(word))))
        axes.text(column, row, word, ha="center", va="center", fontsize=max(size, 4.5),
                  color="white" if value < 0.55 * top else "#111111")  # fmt: skip
    return image
