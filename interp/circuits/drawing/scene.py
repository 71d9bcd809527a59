"""A drawing as marks with a place and a look, which SVG and matplotlib render alike.

Units are points at the natural size; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from interp.circuits.drawing.layout import Box, Curve, Layout, text_width
from interp.circuits.drawing.legend import legend
from interp.circuits.drawing.look import INK, SOFT, Pen, role_colours
from interp.circuits.drawing.marks import Plate, Rectangle, Stroke, Words
from interp.circuits.drawing.scores import EdgeValues
from interp.graph import CHANNELS

__all__ = ["Scene", "heading", "pen_for", "scene"]

_MARGIN: Final = 8.0
_LABELLED: Final = 60  # names of positions, at most
_READS: Final = {"q": "its queries", "k": "its keys", "v": "its values"}


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn, from back to front.

    Attributes:
        width, height: of the sheet, in points.
        bands: behind the rows.
        edges: those with the largest |score| last, over the others.
        plates: the nodes.
        words: titles, names of rows and positions, and the legend's texts.
        samples: the legend's lines.
        swatches: the legend's patches of colour.
    """

    width: float
    height: float
    bands: tuple[Rectangle, ...]
    edges: tuple[Stroke, ...]
    plates: tuple[Plate, ...]
    words: tuple[Words, ...]
    samples: tuple[Stroke, ...]
    swatches: tuple[Rectangle, ...]
    title: str


def scene(
    placed: Layout, values: EdgeValues, roles: Mapping[str, Sequence[str]], *,
    title: str = "", lead: str = "",
) -> Scene:  # fmt: skip
    """Put a layout on a sheet, with a title over it and a legend under it.

    Args:
        title, lead: lines over the drawing; empty: none.
    """
    gutter = max((text_width(row.label, 7.0) for row in placed.rows), default=0.0) + 14.0
    width = max(2 * _MARGIN + gutter + placed.width, 250.0)
    words, y = _heading(title, lead, width)
    x = gutter + (width - gutter - placed.width) / 2
    pen = pen_for([c.edge for c in placed.curves], values)
    strokes = _strokes(placed.curves, values, pen, x, y)
    used = {(c.node, c.channel) for c in placed.curves}
    there = {role for box in placed.boxes for role in roles.get(box.name, ())}
    colours = {role: at for role, at in role_colours(roles).items() if role in there}
    plates = tuple(_plate(box, x, y, roles, colours, used) for box in placed.boxes)
    bands = tuple(
        Rectangle(gutter - 5.0, y + row.y - row.height / 2 - 4.0, width - gutter + 5.0 - _MARGIN / 2, row.height + 8.0, "#f5f6f7")
        for row in placed.rows
    )  # fmt: skip
    words += [
        Words(_MARGIN, y + row.y, row.label, 7.0, "start", SOFT, "row") for row in placed.rows
    ]
    positions, left_out = _positions(strokes, placed.curves, plates)
    words += positions
    foot = legend(
        pen, values, colours, width=width - 2 * _MARGIN, channels=any(c.channel for c in placed.curves),
        drawn=[c.edge for c in placed.curves],
        notes=[left_out] if left_out else [],
    )  # fmt: skip
    below = y + placed.height + 20.0
    return Scene(
        width, below + foot.height + _MARGIN, bands, strokes, plates,
        (*words, *(w.moved(_MARGIN, below) for w in foot.words)),
        tuple(s.moved(_MARGIN, below) for s in foot.samples),
        tuple(s.moved(_MARGIN, below) for s in foot.swatches), title or "circuit",
    )  # fmt: skip


def pen_for(edges: Sequence[str], values: EdgeValues) -> Pen:
    """The pen that draws these edges."""
    scored = (values.of[edge] for edge in edges if edge in values.of)
    return Pen.of(scored, len(edges), signed=values.signed)


def _heading(title: str, lead: str, width: float) -> tuple[list[Words], float]:
    words, y = [], _MARGIN + 4.0
    for text, size, weight, colour in ((title, 10.0, "bold", INK), (lead, 7.5, "normal", SOFT)):
        wide: Literal["bold", "normal"] = "bold" if weight == "bold" else "normal"
        for line in _lines(text, width - 2 * _MARGIN, size * (1.1 if weight == "bold" else 1.0)):
            y += 0.65 * size
            words.append(Words(_MARGIN, y, line, size, "start", colour, "title", wide))
            y += 0.65 * size
    return words, y + 8.0


def _lines(text: str, width: float, size: float) -> list[str]:
    """Text broken at spaces into lines that fit."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _strokes(
    curves: Iterable[Curve], values: EdgeValues, pen: Pen, x: float, y: float
) -> tuple[Stroke, ...]:
    order = sorted(curves, key=lambda c: (abs(values.of.get(c.edge, 0.0)), c.edge))
    return tuple(
        Stroke(
            tuple((px + x, py + y) for px, py in c.points), pen.colour(values.of.get(c.edge)),
            pen.width(values.of.get(c.edge)), pen.opacity(values.of.get(c.edge)), c.edge,
            _edge_title(c, values), c.source, c.node, c.channel, pen.lean(values.of.get(c.edge)),
        )
        for c in order
    )  # fmt: skip


def _edge_title(curve: Curve, values: EdgeValues) -> str:
    reads = f", read by {_READS[curve.channel]}" if curve.channel else ""
    at = f" at {curve.position}" if curve.position else ""
    score = f": {values.of[curve.edge]:+.4g}" if curve.edge in values.of else ""
    return f"{curve.edge}{reads}{at}{score}"


def _plate(
    box: Box, x: float, y: float, roles: Mapping[str, Sequence[str]], colours: Mapping[str, str],
    used: set[tuple[str, str | None]],
) -> Plate:  # fmt: skip
    own = tuple(dict.fromkeys(roles.get(box.name, ())))
    channels = tuple((c, (box.name, c) in used) for c in CHANNELS) if box.channels else ()
    title = f"{box.name}: {', '.join(own)}" if own else box.name
    return Plate(box.name, box.x + x, box.y + y, box.width, box.height,
                 tuple(dict.fromkeys(colours[role] for role in own)), channels, title)  # fmt: skip


def _positions(
    strokes: Sequence[Stroke], curves: Sequence[Curve], plates: Sequence[Plate]
) -> tuple[list[Words], str]:
    """Names of positions beside edges, where they cover neither nodes nor one another.

    Where all edges into one port have the same position, its name stands there once.
    """
    ports: dict[tuple[str, str | None], set[str]] = {}
    for curve in curves:
        if curve.position:
            ports.setdefault((curve.node, curve.channel), set()).add(curve.position)
    named = {c.edge: c.position for c in curves if c.position}
    taken = [(p.x, p.y, p.width, p.height) for p in plates]
    words: list[Words] = []
    done: set[tuple[str, str | None]] = set()
    missing = 0
    for stroke in reversed(strokes):
        text, port = named.get(stroke.edge), (stroke.node, stroke.channel)
        if text is None or port in done:
            continue
        done |= {port} if len(ports[port]) == 1 else set()
        spot = _spot(stroke, text, taken) if len(words) < _LABELLED else None
        missing += spot is None
        if spot:
            taken.append((*spot, text_width(text, 6.0) + 2, 7.0))
            words.append(Words(*spot, text, 6.0, "middle", INK, "position"))
    notes = ["names on edges: the position at which they are read"] if words else []
    notes += [f"{missing} positions not written: point at the edge"] if missing else []
    return words, "; ".join(notes)


def _spot(
    stroke: Stroke, text: str, taken: Sequence[tuple[float, ...]]
) -> tuple[float, float] | None:
    wide = text_width(text, 6.0) + 2
    for piece in range(len(stroke.points) // 3 - 1, -1, -1):
        a, b, c, d = stroke.points[3 * piece : 3 * piece + 4]
        for t in (0.6, 0.7, 0.5, 0.78, 0.4, 0.3, 0.85, 0.2):
            u = 1 - t
            x, y = (
                u**3 * a[i] + 3 * u * u * t * b[i] + 3 * u * t * t * c[i] + t**3 * d[i]
                for i in (0, 1)
            )
            if not any(
                abs(x - p) < (wide + w) / 2 and abs(y - q) < (7.0 + h) / 2 for p, q, w, h in taken
            ):
                return x, y
    return None


def heading(circuit: Any, drawn: int) -> tuple[str, str]:
    """A circuit's title, and what it was measured on.

    >>> heading(circuit, 31)                                                # doctest: +SKIP
    ('ioi, demo', 'logit_diff · resample ablation · 31 of 927 edges')
    """
    total = len(circuit.graph.edges)
    size = len(circuit.edges)
    some = "" if drawn == size else f" · the {drawn:,} of the largest |score| drawn"
    lead = f"{circuit.metric} · {circuit.ablation} ablation · {size:,} of {total:,} edges{some}"
    return f"{circuit.name}, {circuit.model}", lead
