"""Which cells of a sweep moved the metric furthest: their names, and bars with intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from interp.errors import ResultError
from interp.intervals import bootstrap
from interp.results import Axis, cell_labels
from interp.sites import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cell_names", "plot_top"]

#: Layers and heads that an axis counts: ``L*.``, ``H0-3.``, but not ``L2.``.
_WILD = re.compile(r"\b[LH](\*|\d+[-,][\d,-]+)\.")


def cell_names(axes: Sequence[Axis], sites: str | Sequence[str]) -> list[str]:
    """A short name for each cell, in row-major order: ``L1.H3``, ``L2 mlp_out @END``.

    Args:
        sites: what was swept, as a result's provenance has it.
    """
    columns = cell_labels(axes)
    whole = sites if isinstance(sites, str) else " + ".join(sites)
    names = []
    for cell in range(max((len(column) for column in columns.values()), default=1)):
        labels = {axis: str(column[cell]) for axis, column in columns.items()}
        text = labels.pop("path", None) or labels.pop("site", None)
        ends = (text or whole).split("->")
        where = labels.pop("position", None) if len(ends) == 2 else None  # the receiver's
        parts = [_name(ends[0], labels, point=text is not None)]
        if len(ends) == 2:
            labels |= {} if where is None else {"position": where}
            labels = {axis.removeprefix("to "): label for axis, label in labels.items()}
            parts.append(_name(ends[1], labels, point=True))
        names.append(" → ".join(parts))
    return names


def _name(text: str, labels: dict[str, str], *, point: bool) -> str:
    """The name of a cell of a site or group, which takes from ``labels`` those of its own axes.

    Args:
        point: say what is patched there, even of a head or a neuron.
    """
    sites = [Site.parse(part) for part in text.split("+")]
    place = []
    feature = sites[0].kind.units == "F"
    for letter, axis, part in (("L", "layer", "layer"), ("H", "head", "head"),
                               ("F", "feature", "unit") if feature else ("N", "neuron", "unit"),
                               ):  # fmt: skip
        given = [index for site in sites if (index := getattr(site, part)) is not None]
        if axis in labels and not all(index.single for index in given):
            place.append(letter + labels.pop(axis))
        elif len(sites) == 1 and given and given[0].single:
            place.append(letter + given[0].text)
    where = labels.pop("position", None)
    words = [".".join(place)]
    if point or len(sites) > 1 or not place or place[-1][0] == "L":
        words.append(sites[0].point if len(sites) == 1 else _WILD.sub("", text.strip()))
    if where is not None:
        words.append("@" + re.sub(r"^\d+ @", "", where))
    return " ".join(word for word in words if word)


def plot_top(
    effects: Float[Tensor, "*axes prompt"],
    axes: Sequence[Axis],
    sites: str | Sequence[str],
    *,
    k: int,
    title: str,
    unit: str,
) -> Figure:
    """Bars of the ``k`` cells of largest absolute mean effect, with 95% bootstrap intervals.

    Args:
        effects: each prompt's change of the metric, in ``unit``; cells with NaN were not run
            and do not count.

    Raises:
        ResultError: ``k`` is below 1, or no cell was run.
    """
    from interp.figures import ranked

    flat = effects.reshape(-1, effects.shape[-1])
    run = flat.isfinite().all(-1).nonzero().flatten()
    if k < 1 or not len(run):
        raise ResultError(f"plot_top({k}) of {len(run)} finished cells: expected at least 1.")
    order = flat[run].mean(-1).abs().sort(descending=True, stable=True).indices[:k]
    best = run[order]
    names, interval = cell_names(axes, sites), bootstrap(flat[best])
    return ranked(
        [names[i] for i in best.tolist()], interval.mean, low=interval.low, high=interval.high,
        title=f"{title}: top {len(best)} of {len(run)}", unit=unit,
    )  # fmt: skip
