"""Edges as a matrix: what writes from below upwards, what reads from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from interp.figures.paint import largest, note, paint
from interp.figures.style import DIVERGING, SEQUENTIAL, sheet, wrapped
from interp.graph.names import Node, node_of

__all__ = ["edge_figure"]

_NEGATIVE, _POSITIVE, _UNSIGNED = "#2166ac", "#b2182b", "#33658a"  # as in the heat map
_WIDTH = 7.5


def edge_figure(
    values: Float[Tensor, "source dest"],
    sources: Sequence[str],
    dests: Sequence[str],
    *,
    title: str,
    unit: str,
    signed: bool,
    limit: float | None = None,
    empty: str = "no edge",
) -> Figure:
    """A heat map of edges with a bar for each source, the sum of its row.

    Args:
        values: in ``unit``; NaN where there is none.
        signed: centre the colours at zero; False runs from zero upwards.
        limit: the value of the strongest colour; None: the largest magnitude.
        empty: what NaN means.
    """
    array = values.detach().double().cpu().numpy()
    top = largest(array, limit)
    height = min(max(3.4, 1.6 + 0.13 * len(sources)), 9.0)
    with sheet(_WIDTH, height) as figure:
        axes, bars = figure.subplots(
            1, 2, sharey=True, gridspec_kw={"width_ratios": [4.2, 1], "wspace": 0.03}
        )
        image = paint(axes, array, low=-top if signed else 0.0, high=top,
                      colours=DIVERGING if signed else SEQUENTIAL)  # fmt: skip
        tall, wide = height - 1.6, 0.6 * _WIDTH
        _sources(axes, sources, tall / len(sources))
        _dests(axes, dests, wide / len(dests), tall)
        axes.set_ylabel("writes")
        figure.suptitle(wrapped(title, _WIDTH), fontsize=10, fontweight="bold")
        over = limit is not None and bool(np.nanmax(np.abs(array), initial=0.0) > top)
        extend = ("both" if signed else "max") if over else "neither"
        bar = figure.colorbar(image, ax=bars, shrink=0.95, pad=0.08, fraction=0.3, extend=extend)
        bar.set_label(wrapped(unit, height - 1.0), fontsize=8)
        bar.ax.tick_params(labelsize=7)
        _bars(bars, np.nansum(array, axis=1), signed=signed)
        note(figure, array, empty)
    return figure


def _sources(axes: Axes, names: Sequence[str], row: float) -> None:
    """Every name where there is room, else one for each block's heads and its MLP."""
    places: list[float] = list(range(len(names)))
    labels = list(names)
    if row < 0.095:
        groups = _groups(names, _writes)
        places = [middle for _, _, middle in groups]
        labels = [names[first].split(".")[0] for first, _, _ in groups]
    axes.set_yticks(places, labels, fontsize=6.5)
    for first, _, _ in _groups(names, lambda name: Node.parse(name).layer)[1:]:
        axes.axhline(first - 0.5, color="white", linewidth=0.6)


def _dests(axes: Axes, names: Sequence[str], column: float, height: float) -> None:
    """What is read, for the heads of a block together, and below it the block."""
    kinds = _groups(names, _reads)
    shown = [(middle, _reads(names[first])[1]) for first, last, middle in kinds
             if (last - first + 1) * column > 0.085 and names[first] != "logits"]  # fmt: skip
    axes.set_xticks([place for place, _ in shown], [label for _, label in shown], fontsize=6.5)
    for first, _, _ in kinds[1:]:
        axes.axvline(first - 0.5, color="white", linewidth=0.3)
    under = axes.secondary_xaxis(-0.17 / height)
    blocks = _groups(names, lambda name: Node.parse(node_of(name)).layer)
    for first, _, _ in blocks[1:]:
        axes.axvline(first - 0.5, color="white", linewidth=1.0)
    labels = [str(Node.parse(node_of(names[first])).layer) for first, _, _ in blocks[:-1]]
    under.set_xticks([middle for _, _, middle in blocks], [*labels, " out"], fontsize=7)
    under.tick_params(length=0)
    under.spines[:].set_visible(False)
    under.set_xlabel("reads (queries, keys, values and MLP of each block)", fontsize=8)


def _writes(name: str) -> tuple[int | None, str]:
    node = Node.parse(name)
    return node.layer, "" if node.layer is None else node.kind[0]


def _reads(name: str) -> tuple[int | None, str]:
    node = Node.parse(node_of(name))
    return node.layer, name[-2] if name.endswith(">") else node.kind[0]


def _bars(axes: Axes, sums: np.ndarray, *, signed: bool) -> None:
    colours = [_POSITIVE if one > 0 else _NEGATIVE for one in sums] if signed else _UNSIGNED
    axes.barh(range(len(sums)), sums, height=0.8, color=colours)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.tick_params(axis="x", labelsize=6.5)
    axes.locator_params(axis="x", nbins=3)
    axes.set_xlabel("sum of\na node's edges", fontsize=8)


def _groups(names: Sequence[str], key: Callable[[str], object]) -> list[tuple[int, int, float]]:
    """First place, last place and middle of each run of names with one key."""
    found = []
    for _, run in groupby(range(len(names)), lambda i: key(names[i])):
        places = list(run)
        found.append((places[0], places[-1], (places[0] + places[-1]) / 2))
    return found
