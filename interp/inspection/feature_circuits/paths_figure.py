"""A graph of features over its prompt: columns are tokens, rows are parts of layers, from below upwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp.figures.labels import short
from interp.figures.style import PALETTE, WIDTH, sheet, wrapped
from interp.inspection.feature_circuits.node import Node

if TYPE_CHECKING:
    from interp.inspection.feature_circuits.paths_result import FeaturePaths

__all__ = ["paths_figure"]

_COLOURS: Final = {
    "feature": PALETTE[0], "head": PALETTE[3], "embed": PALETTE[2], "pos_embed": PALETTE[2],
    "mlp": PALETTE[5],
}  # fmt: skip
_LINE: Final = 0.36  # inches: the height of a node with its label

Place = tuple[float, float]


def paths_figure(
    found: FeaturePaths, labels: Mapping[str, str], *, title: str | None = None
) -> Figure:
    """Draw the graph of some paths; an edge is as wide as what it carries, and says the largest."""
    names = list(dict.fromkeys([found.feature, *(name for path in found.paths for name in path)]))
    nodes = {name: Node.parse(name) for name in names}
    columns = sorted({node.place for node in nodes.values() if node.place is not None})
    places, rows, top = _places(nodes, columns)
    headline = wrapped(title or f"what leads to {found.feature}", WIDTH - 1.6)
    with sheet(WIDTH, min(8.0, 1.1 + _LINE * top + 0.17 * headline.count("\n"))) as figure:
        axes = figure.subplots()
        _edges(axes, found.edges, places)
        for name, node in nodes.items():
            _node(axes, node, labels, places[name])
        axes.set_xlim(-0.6, len(columns) - 0.4)
        axes.set_ylim(-0.7, top - 0.3)
        axes.set_xticks(
            range(len(columns)), [f"{c}\n{short(found.tokens[c], 12)}" for c in columns]
        )
        axes.set_yticks([y for _, y in rows], [label for label, _ in rows])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8)
        axes.set_xlabel("position and token (a head stands where it reads)")
        axes.set_title(headline)
    return figure


def _row(node: Node) -> tuple[int, int, str]:
    if node.layer is None:
        return -1, 0, "embed"
    return (
        (node.layer, 0, f"L{node.layer} heads")
        if node.kind == "head"
        else (node.layer, 1, f"L{node.layer} mlp")
    )


def _places(
    nodes: Mapping[str, Node], columns: list[int]
) -> tuple[dict[str, Place], list[tuple[str, float]], float]:
    """Where each node stands, the middle of each row, and the height; nodes of one cell stand above each other."""
    cells: dict[tuple[tuple[int, int, str], int], list[str]] = {}
    for name, node in nodes.items():
        cells.setdefault((_row(node), columns.index(node.place or 0)), []).append(name)
    places, rows, bottom = dict[str, Place](), list[tuple[str, float]](), 0.0
    for row in sorted({row for row, _ in cells}):
        height = max(len(own) for (where, _), own in cells.items() if where == row)
        for (where, column), own in cells.items():
            if where == row:
                gap = (height - len(own)) / 2
                places |= {
                    name: (float(column), bottom + gap + i) for i, name in enumerate(sorted(own))
                }
        rows.append((row[2], bottom + (height - 1) / 2))
        bottom += height + 0.45
    return places, rows, bottom


def _edges(axes: Axes, edges: Mapping[tuple[str, str], float], places: Mapping[str, Place]) -> None:
    most = max(edges.values())
    largest = max(edges, key=lambda edge: edges[edge])
    for (start, end), value in edges.items():
        (x, y), (u, v) = places[start], places[end]
        axes.annotate(
            "", (u, v - 0.27), xytext=(x, y + 0.27), zorder=1,
            arrowprops={"arrowstyle": "-|>", "color": "#555555", "alpha": 0.25 + 0.6 * value / most,
                        "linewidth": 0.4 + 2.6 * value / most, "mutation_scale": 7,
                        "connectionstyle": "arc3,rad=0.08" if x == u else "arc3,rad=0"},
        )  # fmt: skip
        if (start, end) == largest:
            axes.text((x + u) / 2, (y + v) / 2, f"{value:.2g}", fontsize=6.5, color="#222222", zorder=3,
                      ha="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip


def _node(axes: Axes, node: Node, labels: Mapping[str, str], place: Place) -> None:
    text = {
        "feature": f"F{node.index}", "head": f"H{node.index}", "embed": "embed", "pos_embed": "pos", "mlp": "MLP",
    }[node.kind]  # fmt: skip
    more = labels.get(node.name.partition("@")[0], "")
    axes.text(
        *place, f"{text} {short(more, 14)}".strip(), ha="center", va="center", fontsize=7, color="white", zorder=4,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": _COLOURS[node.kind], "edgecolor": "none"},
    )  # fmt: skip
