"""``page``: a circuit as one HTML file to look into. It loads nothing: no network, no library.

The drawings stand in the file as SVG, so a reader without scripts sees them too; the script adds what
is pointed at, the slider, the attention patterns and the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from interp.circuits.drawing.curves import Points
from interp.circuits.drawing.draw import placed_for, shown
from interp.circuits.drawing.look import role_colours
from interp.circuits.drawing.patterns import measured, packed
from interp.circuits.drawing.scene import heading, scene
from interp.circuits.drawing.scores import EdgeValues
from interp.circuits.drawing.svg import svg
from interp.errors import CircuitError, warn
from interp.results import write_atomically
from interp.views import framed

if TYPE_CHECKING:
    from interp.lenses.attention import AttentionResult

__all__ = ["CircuitPage", "page"]

_HERE: Final = Path(__file__).parent
_MOST: Final = 1500  # edges of the whole graph that a page draws
_HEIGHT: Final = 820  # CSS pixels, of a notebook's frame


@dataclass(frozen=True, eq=False, repr=False)
class CircuitPage:
    """An interactive page of a circuit. A notebook shows it; :meth:`save` writes it.

    Attributes:
        name: of the circuit.
        document: the page as HTML text.
    """

    name: str
    document: str

    def __repr__(self) -> str:
        size = len(self.document) / 1e3
        return f"CircuitPage({self.name!r}, {size:,.0f} kB; shown in a notebook, or .save('circuit.html'))"

    def html(self) -> str:
        """The page as HTML text. The same circuit, scores, curve and patterns give the same text."""
        return self.document

    def save(self, path: str | Path) -> Path:
        """Write the page to one HTML file, whole or not at all.

        Raises:
            ResultError: the place cannot be written.
        """
        return write_atomically(path, self.document.encode())

    def _repr_html_(self) -> str:
        return framed(self.document, height=_HEIGHT)


def page(
    circuit: Any, *, model: Any = None, prompts: Any = None, scores: Any = None, curve: Any = None,
    attention: Any = None, title: str | None = None,
) -> CircuitPage:  # fmt: skip
    """Make a page of a circuit: what is pointed at says its score, a clicked head shows where it looks.

    A slider keeps the first n edges by score; beside it stands the faithfulness at that n where it
    was measured, and nothing is interpolated: of the circuit's first n if there is a
    ``member_curve``, of the graph's if there is a ``curve``. Where scores reach beyond the circuit, the whole
    graph (its 1500 first edges) can be looked at in the same way.

    >>> circuit.view(model=model, prompts=prompts, curve=curve).save("ioi.html")  # doctest: +SKIP

    Args:
        circuit: an :class:`interp.circuits.Circuit`.
        model, prompts: to measure attention patterns on: the first six prompts, the circuit's heads.
        scores: of edges; None: the circuit's own.
        curve: faithfulness of the first n edges (``interp.circuits.curve``, ``member_curve``, or a
            list of one of each), or a mapping with ``n_edges``, ``faithfulness`` and perhaps ``low``
            and ``high``.
        attention: patterns measured before, :class:`interp.AttentionResult` of one prompt or
            several, instead of ``model`` and ``prompts``.
        title: of the page; None: the circuit's name and model.

    Raises:
        CircuitError: nothing to draw, scores of other edges, a curve without scores or of another
            graph, a model without prompts, or patterns larger than a page.
    """
    own = getattr(circuit, "scores", None) if scores is None else scores
    values = EdgeValues.read(own).for_circuit(circuit)
    both = curve if isinstance(curve, list | tuple) else [curve]
    read = [points for one in both if (points := _curve(circuit, values, one))]
    found = {points.own: points for points in read}
    if len(found) < len(read) or (len(found) == 2 and found[False].signed):
        raise CircuitError(
            f"{len(read)} curves for one page ({', '.join(one.selection for one in read)}); expected "
            "at most one of the graph's edges and one of the circuit's, both by |score|."
        )
    points, own_points = found.get(False), found.get(True)
    signed = bool(points and points.signed)
    kept = packed(_patterns(circuit, model, prompts, attention))
    order = values.ranked(values.of, signed=signed)
    views = _views(circuit, values, order, signed)
    name, lead = heading(circuit, len(circuit.edges))
    data = {
        "edges": _edges(circuit, values, order, views), "nodes": _nodes(circuit, values),
        "views": {view: list(edges) for view, (edges, _) in views.items()},
        "what": values.what, "signed": values.signed, "scored": len(order),
        "ranking": "signed score" if signed else "|score|",
        "same": _same(views["circuit"][0], order),
        "curve": points.table() if points else None,
        "own": own_points.table() if own_points else None, "prompts": kept,
    }  # fmt: skip
    return CircuitPage(circuit.name, _document(title or name, lead, views, data))


def _curve(circuit: Any, values: EdgeValues, curve: Any) -> Points | None:
    points = Points.read(curve)
    if points is None:
        return None
    total = len(circuit.graph.edges)
    if not values.of:
        raise CircuitError(
            "a curve without scores cannot be followed: give the scores it was measured with."
        )
    if points.n_edges[-1] > total or points.total not in (None, total):
        raise CircuitError(
            f"a curve of up to {points.total or points.n_edges[-1]:,} edges is not of the graph of {circuit.name!r}, which "
            f"has {total:,} edges."
        )
    method = getattr(curve, "method", None)
    if method and values.method and method != values.method:
        raise CircuitError(
            f"a curve of {method!r} scores with {values.method!r} scores: its circuits are other edges; give "
            "the scores it was measured with."
        )
    return points


def _patterns(circuit: Any, model: Any, prompts: Any, given: Any) -> Sequence[AttentionResult]:
    if (model is None) != (prompts is None):
        raise CircuitError(
            "attention patterns need both model= and prompts=; one of them was given."
        )
    if given is not None:
        return [given] if hasattr(given, "patterns") else list(given)
    if model is None:
        return []
    if circuit.weights_hash not in (None, model.weights_hash):
        warn(
            f"circuit {circuit.name!r} was found on other weights than those of {model.name!r}: the page shows the "
            "attention of the model that was given."
        )
    return measured(circuit, model, prompts)


def _views(
    circuit: Any, values: EdgeValues, order: Sequence[str], signed: bool
) -> dict[str, tuple[Sequence[str], str]]:
    """The circuit and, where scores reach further, the whole graph: their edges by rank, and their SVG."""
    own = values.ranked(shown(circuit, values, None), signed=signed)
    views: dict[str, tuple[Sequence[str], str]] = {"circuit": (own, _drawn(circuit, own, values))}
    if any(edge not in circuit.edges for edge in order):
        graph = order[:_MOST]
        views["graph"] = (graph, _drawn(circuit, graph, values))
    return views


def _drawn(circuit: Any, edges: Sequence[str], values: EdgeValues) -> str:
    return svg(scene(placed_for(circuit, edges, values), values, circuit.roles))


def _same(inside: Sequence[str], scored: Sequence[str]) -> list[int]:
    """The n at which the circuit's first n edges are the first n of all that have a score.

    There the curve, which is of the latter, is of the former too.
    """
    out, differ = [0], set[str]()
    for n, (a, b) in enumerate(zip(inside, scored, strict=False), 1):
        differ ^= {a}
        differ ^= {b}
        out += [n] if not differ else []
    return out


def _edges(
    circuit: Any, values: EdgeValues, order: Sequence[str], views: dict[str, Any]
) -> list[list[Any]]:
    """Of each edge in a view: its name, its score, its rank among all that are scored, whether it is a member."""
    ranks = {edge: i for i, edge in enumerate(order, 1)}
    names = dict.fromkeys(edge for edges, _ in views.values() for edge in edges)
    return [
        [edge, _short(values.of.get(edge)), ranks.get(edge), int(edge in circuit.edges)]
        for edge in names
    ]


def _nodes(circuit: Any, values: EdgeValues) -> dict[str, Any]:
    """Of each node of the graph: its roles, whether it is a member, and the sum of its outgoing scores."""
    sums, colours = values.nodes(), role_colours(circuit.roles)
    return {
        node: {"roles": [[role, colours[role]] for role in circuit.roles.get(node, ())],
               "in": int(node in circuit.nodes), "sum": _short(sums.get(node))}
        for node in circuit.graph.nodes
    }  # fmt: skip


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _document(title: str, lead: str, views: dict[str, Any], data: dict[str, Any]) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_read("page.html.j2"))
    return template.render(
        title=title, lead=lead, views=[(name, Markup(drawn)) for name, (_, drawn) in views.items()],
        data=Markup(_json(data)), css=Markup(_read("page.css")), js=Markup(_read("page.js")),
    )  # fmt: skip


def _json(data: Any) -> str:
    """JSON that can stand inside a script element: no ``<``, ``>`` or ``&``."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache
def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
