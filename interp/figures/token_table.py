"""A table of tokens, each cell coloured by a signed number: what directions of weights say."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from interp.figures.labels import short, text_inches
from interp.figures.paint import largest, paint
from interp.figures.style import DIVERGING, canvas, wrapped

__all__ = ["token_table"]

_FONT = 7.5


def token_table(
    tokens: Sequence[Sequence[str]],
    values: Float[Tensor, "row column"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    unit: str,
) -> Figure:
    """Draw tokens in cells, the first row on top; red is positive, blue negative.

    Args:
        tokens: the text of each cell; long ones are cut.
        values: a number for each cell, in ``unit``.
    """
    array = values.detach().float().cpu().numpy()
    n_rows, n_columns = array.shape
    top = largest(array)
    words = [[short(token, 14) for token in row] for row in tokens]
    cell = max(0.62, text_inches([word for row in words for word in row], _FONT) + 0.12)
    side = text_inches(rows, 8.0)
    width = max(3.6, side + cell * n_columns + 1.3)
    headline = wrapped(title, width - 0.6)
    height = max(1.7, 0.75 + 0.17 * headline.count("\n") + 0.24 * n_rows)
    with canvas(width, height) as (figure, axes):
        image = paint(axes, array, low=-top, high=top, colours=DIVERGING, upward=False)
        for i, row in enumerate(words):
            for j, word in enumerate(row):
                axes.text(j, i, word, ha="center", va="center", fontsize=_FONT,
                          color="white" if abs(array[i, j]) > 0.62 * top else "#222222")  # fmt: skip
        axes.set_xticks(range(n_columns), [short(name, 24) for name in columns])
        axes.set_yticks(range(n_rows), [short(name, 24) for name in rows])
        axes.set_title(headline)
        figure.colorbar(image, ax=axes, pad=0.02).set_label(unit, fontsize=8)
    return figure
