"""A value for each cell of a sweep: panels of three axes, a heat map of two, bars of one.

Of more cells on one axis than a page has room for, as in a sweep over features, the largest are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from interp.errors import ResultError
from interp.figures.bars import bars
from interp.figures.heatmap import heatmap
from interp.figures.panels import panels

__all__ = ["grid"]

#: Bars that are drawn of one axis.
_BARS = 100


def grid(
    values: Float[Tensor, "*axes"],
    axes: Mapping[str, Sequence[str]],
    *,
    title: str,
    unit: str,
    signed: bool = True,
    panel: str | None = None,
) -> Figure:
    """Draw the values of a sweep; cells that were not run (NaN) are grey.

    Of one axis of more than 100 cells, the 100 of largest size, which the title says.

    Args:
        axes: the name of each axis of ``values`` with its labels.
        signed: centre the colours of a heat map at zero; False runs from zero upwards.
        panel: of three axes, the one that makes the panels; None: the first.

    Raises:
        ResultError: more axes than a figure can show, or there is no axis ``panel``.
    """
    if panel is not None and (len(axes) != 3 or panel not in axes):
        raise ResultError(
            f"panel={panel!r}: this result has the axes {', '.join(axes) or 'none'}; expected one "
            "of three. Leave panel out."
        )
    if len(axes) == 3:
        over = panel or next(iter(axes))
        (row_name, rows), (column_name, columns) = (a for a in axes.items() if a[0] != over)
        return panels(
            values.movedim(list(axes).index(over), 0), panels=_headings(over, axes),
            rows=rows, columns=columns, title=title, unit=unit,
            row_name=row_name, column_name=column_name, signed=signed,
        )  # fmt: skip
    if len(axes) == 2:
        (row_name, rows), (column_name, columns) = axes.items()
        return heatmap(
            values, rows=rows, columns=columns, title=title, unit=unit,
            row_name=row_name, column_name=column_name, signed=signed,
        )  # fmt: skip
    if len(axes) == 1:
        ((name, labels),) = axes.items()
        kept = list(range(len(labels)))
        if len(labels) > _BARS:
            order = values.abs().nan_to_num(-1.0).argsort(descending=True, stable=True)
            kept = order[:_BARS].tolist()
            title = f"{title}: the {_BARS} largest of {len(labels):,}"
        shown = [f"{name} {labels[i]}" if labels[i].isdigit() else labels[i] for i in kept]
        return bars(shown, {unit: values[kept].tolist()}, title=title, unit=unit)
    if not axes:
        return bars(["all"], {unit: [float(values)]}, title=title, unit=unit)
    first, labels = next(iter(axes.items()))
    raise ResultError(
        f"{len(axes)} axes ({', '.join(axes)}) do not fit in one figure: pick one with "
        f"result.select({first}={labels[0]!r})."
    )


def _headings(name: str, axes: Mapping[str, Sequence[str]]) -> list[str]:
    """What stands over each panel: ``layer 3``, or a site without the axes drawn beside it."""
    labels = axes[name]
    if name in ("site", "path"):
        return [re.sub(r"\b[LH](\*|\d+[-,][\d,-]+)\.", "", label) for label in labels]
    return [f"{name} {label}" if label.isdigit() else label for label in labels]
