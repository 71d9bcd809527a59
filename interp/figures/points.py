"""Points in a plane, coloured by what they belong to."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from interp.errors import ResultError
from interp.figures.labels import short
from interp.figures.style import PALETTE, canvas, wrapped

__all__ = ["points"]

_MOST = 32  # letters of a label
_MARKS = ("o", "s", "^", "D", "v", "P")


def points(
    x: Sequence[float],
    y: Sequence[float],
    *,
    title: str,
    x_name: str,
    y_name: str,
    labels: Sequence[str] | None = None,
    named: Sequence[tuple[int, str]] = (),
) -> Figure:
    """Draw points, one colour and mark for each label, on axes of one scale.

    Args:
        labels: what each point belongs to; None: all alike.
        named: the numbers of some points, each with a text to write beside it.

    Raises:
        ResultError: not one ``y`` and one label for each point, more labels than can be told apart,
            or a number in ``named`` that no point has.
    """
    given = ["" for _ in x] if labels is None else [str(label) for label in labels]
    kinds = sorted(set(given))
    most = len(PALETTE) * len(_MARKS)
    if len(x) != len(y) or any(not 0 <= place < len(x) for place, _ in named):
        raise ResultError(
            f"{len(x)} x and {len(y)} y, and names at {[place for place, _ in named]}; expected one y "
            "for each x, and names at numbers of points."
        )
    if len(given) != len(x) or len(kinds) > most:
        raise ResultError(
            f"{len(given)} labels of {len(kinds)} kinds for {len(x)} points; expected one for each "
            f"point, of at most {most} kinds."
        )
    beside = (
        0.0
        if labels is None
        else 0.5 + 0.067 * max((len(short(kind, _MOST)) for kind in kinds), default=0)
    )
    headline = wrapped(title, 4.0)
    height = max(4.0 + 0.17 * headline.count("\n"), 0.3 + 0.175 * len(kinds))
    with canvas(4.6 + beside, height) as (figure, axes):
        for i, kind in enumerate(kinds):
            mine = [place for place, label in enumerate(given) if label == kind]
            axes.scatter(
                [x[place] for place in mine], [y[place] for place in mine], s=18, alpha=0.75,
                color=PALETTE[i % len(PALETTE)], linewidths=0, label=short(kind, _MOST),
                marker=_MARKS[(i // len(PALETTE) + i) % len(_MARKS)],
            )  # fmt: skip
        for place, text in named:
            axes.annotate(short(text, 40), (x[place], y[place]), xytext=(4, 3), textcoords="offset points",
                          fontsize=6.5)  # fmt: skip
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        axes.set_title(headline)
        if labels is not None:
            figure.legend(loc="outside right upper", frameon=False)
    return figure
