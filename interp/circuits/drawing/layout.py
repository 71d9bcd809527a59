"""Where the nodes and edges of a circuit stand: rows from the embeddings up to the logits.

Nodes that read the same residual stream share a row: a block's heads, its MLP above them (beside
them in parallel blocks). Only nodes of the circuit are there. An edge that skips rows passes each of
them in a lane of its own; lanes of edges from one source lie side by side, so no edge runs behind a
node. Edges into a head end left (queries), in the middle (keys) or right (values).

Units are points (1/72 inch) at the drawing's natural size; x grows to the right and y downwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from interp.circuits.drawing.order import place, sort_rows
from interp.errors import CircuitError
from interp.graph import CHANNELS, Node, node_of, split_edge

__all__ = ["Box", "Curve", "Layout", "Row", "layout", "text_width"]

FONT: Final = 8.0  # points, of a node's name
_ACROSS: Final = 16  # nodes in a row before it is broken
_BETWEEN: Final = 8.0  # from node to node
_LANE: Final = (0.5, 2.6)  # least and most from edge to edge
_LANES: Final = 240.0  # points that all lanes of a row may take
_MOST: Final = 3000  # edges: beyond it nothing can be seen
_NARROW, _WIDE = frozenset(".,:;|!'ijl ()[]"), frozenset("mwMW@%→—")


@dataclass(frozen=True)
class Box:
    """A node: its name, its centre, its size and its row, counted from the bottom."""

    name: str
    x: float
    y: float
    width: float
    height: float
    row: int

    @property
    def channels(self) -> bool:
        """Whether it reads through q, k and v."""
        return Node.parse(self.name).kind == "head"


@dataclass(frozen=True)
class Curve:
    """An edge: cubic Bézier pieces, as one start and three points for each piece."""

    edge: str
    source: str
    node: str
    channel: str | None
    position: str | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Row:
    """A row's words and its centre."""

    label: str
    y: float
    height: float


@dataclass(frozen=True)
class Layout:
    """All of a drawing's places; ``boxes`` row by row and left to right, ``curves`` as given."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]
    rows: tuple[Row, ...]


def text_width(text: str, size: float = FONT) -> float:
    """About how wide a text is in DejaVu Sans or Verdana, in points."""
    ems = (0.36 if c in _NARROW else 0.96 if c in _WIDE else 0.62 for c in text)
    return size * sum(ems)


def layout(
    edges: Iterable[str], *, parallel: bool = False, nodes: Iterable[str] = (),
    widths: Mapping[str, float] | None = None,
) -> Layout:  # fmt: skip
    """Lay out edges and the nodes at their ends.

    Args:
        edges: as in ``Circuit.edges``; their order decides nothing.
        parallel: whether heads and MLP of a block read the same stream.
        nodes: more nodes, which may have no edge.
        widths: of the edges' lines, in points, so that lanes are wide enough for them.

    Raises:
        CircuitError: no edge and no node, more edges than can be seen, or an edge that does not go
            from a row to a higher one.
    """
    ends = {edge: split_edge(edge) for edge in sorted(set(edges))}
    names = {node for s, d, _ in ends.values() for node in (s, node_of(d))} | set(nodes)
    if not names:
        raise CircuitError(
            "a circuit without edges has nothing to draw; expected at least one edge."
        )
    if len(ends) > _MOST:
        raise CircuitError(
            f"{len(ends):,} edges cannot be told apart in a drawing (at most {_MOST:,}); draw those with "
            "the largest scores, with top=300."
        )
    return _Plan(ends, names, parallel, widths or {}).layout()


class _Plan:
    """The steps of :func:`layout`, and what they hand on."""

    def __init__(self, ends: Mapping[str, tuple[str, str, str | None]], names: Iterable[str],
                 parallel: bool, thick: Mapping[str, float]) -> None:  # fmt: skip
        self.ends, self.thick = ends, thick
        self.rows, self.labels = _rows(names, parallel)
        self.row = {name: r for r, row in enumerate(self.rows) for name in row}
        self._route()
        self.order = sort_rows(self._items(), self.links)
        self._put()

    # -- routes: the row-by-row items of each edge --------------------------------------

    def _route(self) -> None:
        """Edges of one source that pass a row share an item there: ``(source, row)``."""
        self.passing: dict[tuple[str, int], list[str]] = {}
        self.links: list[dict[tuple[Any, Any], int]] = [{} for _ in self.rows[1:]]
        for edge, (source, dest, _) in self.ends.items():
            start, stop = self.row[source], self.row[node_of(dest)]
            if start >= stop:
                raise CircuitError(
                    f"{edge!r} does not go upwards: {source!r} writes after or beside what {dest!r} reads."
                )
            stops = [(source, r) for r in range(start + 1, stop)]
            for item in stops:
                self.passing.setdefault(item, []).append(edge)
            for r, pair in enumerate(pairwise([source, *stops, node_of(dest)]), start):
                self.links[r][pair] = self.links[r].get(pair, 0) + 1

    def _items(self) -> list[list[Any]]:
        """Each row's nodes, in the middle of what passes it."""
        out: list[list[Any]] = []
        for r, row in enumerate(self.rows):
            groups = [item for item in self.passing if item[1] == r]
            groups.sort(
                key=lambda item: (self.row[item[0]], self.rows[self.row[item[0]]].index(item[0]))
            )
            half = len(groups) // 2
            out.append([*groups[:half], *row, *groups[half:]])
        return out

    # -- places ---------------------------------------------------------------------------

    def _put(self) -> None:
        into: dict[str, int] = {}
        for _, dest, _ in self.ends.values():
            into[node_of(dest)] = into.get(node_of(dest), 0) + 1
        most = max(
            Counter(r for (_, r), edges in self.passing.items() for _ in edges).values(), default=0
        )
        lane = min(_LANE[1], max(_LANE[0], _LANES / max(most, 1)))
        self.lane = {edge: max(lane, self.thick.get(edge, 0.0) + 0.6 * lane) for edge in self.ends}
        widths: dict[Any, float] = {
            n: _node_width(n, into.get(n, 0)) for row in self.rows for n in row
        }
        widths |= {
            item: sum(self.lane[edge] for edge in edges) for item, edges in self.passing.items()
        }
        straight: dict[Any, float] = dict.fromkeys(self.passing, 2.5)
        self.widths = widths
        self.x = place(self.order, self.links, widths, gap=_BETWEEN, straight=straight)
        self.heights = [max(_node_height(name) for name in row) for row in self.rows]
        self.y, bottom = [], 0.0
        for r, height in enumerate(self.heights):
            bottom -= _gap(sum(self.links[r - 1].values())) if r else 0.0
            self.y.append(bottom - height / 2)
            bottom -= height
        self.top = bottom

    def layout(self) -> Layout:
        left = min(x - self.widths[item] / 2 for item, x in self.x.items())
        right = max(x + self.widths[item] / 2 for item, x in self.x.items())
        self._shift(-left, -self.top)
        boxes = tuple(
            Box(name, self.x[name], self.y[r], self.widths[name], _node_height(name), r)
            for r, row in enumerate(self.order) for name in row if isinstance(name, str)
        )  # fmt: skip
        rows = tuple(map(Row, self.labels, self.y, self.heights))
        return Layout(right - left, -self.top, boxes, tuple(self._curves()), rows)

    def _shift(self, x: float, y: float) -> None:
        self.x = {item: at + x for item, at in self.x.items()}
        self.y = [at + y for at in self.y]

    # -- curves ---------------------------------------------------------------------------

    def _curves(self) -> Iterable[Curve]:
        lanes = self._lanes()
        starts, stops = self._ports(lanes)
        for edge, (source, dest, position) in self.ends.items():
            channel = dest[-2] if dest.endswith(">") else None
            r = self.row[source]
            at, y = starts[edge], self.y[r] - _node_height(source) / 2
            points = [(at, y)]
            for up in range(r + 1, self.row[node_of(dest)]):
                low, high = self.y[up] + self.heights[up] / 2, self.y[up] - self.heights[up] / 2
                points += _piece(points[-1], (lanes[edge, up], low))
                points += _piece(points[-1], (lanes[edge, up], high))
            end = self.row[node_of(dest)]
            points += _piece(
                points[-1], (stops[edge], self.y[end] + _node_height(node_of(dest)) / 2)
            )
            yield Curve(edge, source, node_of(dest), channel, position, tuple(points))

    def _lanes(self) -> dict[tuple[str, int], float]:
        """Where each edge passes each row; the lanes of one source in the order of their ends."""
        out = {}
        for (source, r), edges in self.passing.items():
            by_end = sorted(edges, key=lambda edge: (self._end(edge), edge))
            at = self.x[source, r] - self.widths[source, r] / 2
            for edge in by_end:
                out[edge, r] = at + self.lane[edge] / 2
                at += self.lane[edge]
        return out

    def _end(self, edge: str) -> float:
        dest = self.ends[edge][1]
        return self.x[node_of(dest)] + _cell(dest, self.widths[node_of(dest)])[0]

    def _ports(
        self, lanes: Mapping[tuple[str, int], float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Where on its source an edge begins, and where on its destination it ends."""
        out: dict[str, list[str]] = {}
        into: dict[str, list[str]] = {}
        for edge, (source, dest, _) in self.ends.items():
            out.setdefault(source, []).append(edge)
            into.setdefault(dest, []).append(edge)
        starts: dict[str, float] = {}
        stops: dict[str, float] = {}
        for source, edges in out.items():
            up = self.row[source] + 1
            by = sorted(edges, key=lambda e: (lanes.get((e, up), self._end(e)), e))
            starts |= dict(
                zip(by, _fan(self.x[source], 0.6 * self.widths[source], len(by)), strict=True)
            )
        for dest, edges in into.items():
            node = node_of(dest)
            down = self.row[node] - 1
            by = sorted(edges, key=lambda e: (lanes.get((e, down), self.x[self.ends[e][0]]), e))
            offset, room = _cell(dest, self.widths[node])
            stops |= dict(zip(by, _fan(self.x[node] + offset, room, len(by)), strict=True))
        return starts, stops


def _rows(names: Iterable[str], parallel: bool) -> tuple[list[list[str]], list[str]]:
    """Nodes by what they read, from the bottom; a row of very many is broken."""
    ranked: dict[tuple[float, ...], list[Node]] = {}
    for node in map(Node.parse, names):
        ranked.setdefault(_rank(node, parallel), []).append(node)
    rows, labels = [], []
    for _, nodes in sorted(ranked.items()):
        nodes.sort(
            key=lambda node: (node.kind not in ("embed", "head"), node.kind, node.index or 0)
        )
        pieces = -(-len(nodes) // _ACROSS)
        size = -(-len(nodes) // pieces)
        for start in range(0, len(nodes), size):
            rows.append([str(node) for node in nodes[start : start + size]])
            labels.append(_label(nodes, parallel) if start == 0 else "")
    return rows, labels


def _rank(node: Node, parallel: bool) -> tuple[float, ...]:
    if node.layer is None:
        return (float("inf"),) if node.kind == "logits" else (-1.0,)
    return (node.layer, float(node.kind != "head" and not parallel))


def _label(nodes: Sequence[Node], parallel: bool) -> str:
    first = nodes[0]
    if first.layer is None:
        return "output" if first.kind == "logits" else "input"
    kind = "" if parallel else " heads" if first.kind == "head" else " MLP"
    return f"block {first.layer}{kind}"


def _node_width(name: str, into: int) -> float:
    """Room for its name and its three channels; the logits widen with what they read."""
    least = 30.0 if Node.parse(name).kind == "head" else 26.0
    wide = min(150.0, 5.0 * into) if name == "logits" else 0.0
    return max(least, wide, text_width(name) + 9.0)


def _node_height(name: str) -> float:
    return 23.0 if Node.parse(name).kind == "head" else 15.0


def _gap(edges: int) -> float:
    """Height between two rows: more where many edges find their way."""
    return min(17.0 + 1.6 * edges**0.66, 100.0)


def _cell(dest: str, width: float) -> tuple[float, float]:
    """Where edges end on a node: the middle of their part of its foot, from its centre, and its room."""
    if not dest.endswith(">"):
        return 0.0, 0.7 * width
    return (CHANNELS.index(dest[-2]) - 1) * width / 3, 0.2 * width


def _fan(centre: float, room: float, n: int) -> list[float]:
    step = min(room / max(n - 1, 1), 4.0)
    return [centre + (i - (n - 1) / 2) * step for i in range(n)]


def _piece(start: tuple[float, float], stop: tuple[float, float]) -> list[tuple[float, float]]:
    """A cubic piece that leaves and arrives vertically."""
    middle = (stop[1] - start[1]) / 2
    return [(start[0], start[1] + middle), (stop[0], stop[1] - middle), stop]
