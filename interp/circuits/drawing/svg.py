"""A scene as SVG text: plain shapes with names, so that a page's script and style can find them.

Edges are ``path.edge`` with ``data-edge``, nodes ``g.node`` with ``data-node``; each has a ``title`` that a
browser shows when it is pointed at. Nothing is referred to, so it can stand anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from interp.circuits.drawing.look import INK, PAPER, PLAIN, SOFT, TINT
from interp.circuits.drawing.marks import Plate, Rectangle, Stroke, Words
from interp.circuits.drawing.scene import Scene

__all__ = ["svg"]

_FONT = "'DejaVu Sans', Verdana, sans-serif"


def svg(scene: Scene, *, width: float | None = None) -> str:
    """Write a scene.

    Args:
        width: in inches; None: the natural one.
    """
    inches = scene.width / 72 if width is None else width
    high = inches * scene.height / scene.width
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="circuit" role="img" width="{_n(inches)}in" '
        f'height="{_n(high)}in" viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" '
        f'font-family="{_FONT}">',
        f"<title>{_text(scene.title)}</title>",
        f'<rect class="paper" width="{_n(scene.width)}" height="{_n(scene.height)}" fill="{PAPER}"/>',
        *_group("bands", (_rectangle(band) for band in scene.bands)),
        *_group("edges", (_stroke(stroke) for stroke in scene.edges)),
        *_group("nodes", (_plate(plate) for plate in scene.plates)),
        *_group("samples", (_stroke(stroke) for stroke in scene.samples)),
        *_group("swatches", (_rectangle(swatch) for swatch in scene.swatches)),
        *_group("words", (_words(words) for words in scene.words if words.text)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _group(name: str, parts: Iterable[str]) -> list[str]:
    return [f'<g class="{name}">', *parts, "</g>"]


def _n(number: float) -> str:
    """Two digits behind the point, and none that say nothing."""
    text = f"{number:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _text(text: str) -> str:
    """Text for markup; characters that XML forbids are written out."""
    legal = "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in text)
    return escape(legal, quote=True)


def _stroke(stroke: Stroke) -> str:
    (x, y), *rest = ((_n(px), _n(py)) for px, py in stroke.points)
    path = f"M{x} {y}C" + " ".join(f"{px} {py}" for px, py in rest)
    lean = "" if stroke.lean is None else f' data-lean="{stroke.lean:.3f}"'
    look = (
        f'd="{path}" fill="none" stroke="{stroke.colour}" stroke-width="{_n(stroke.width)}" '
        f'stroke-opacity="{_n(stroke.opacity)}" stroke-linecap="butt"{lean}'
    )
    if not stroke.edge:
        return f"<path {look}/>"
    names = (
        f'class="edge" data-edge="{_text(stroke.edge)}" data-source="{_text(stroke.source)}" '
        f'data-dest="{_text(stroke.node)}"'
    )
    channel = f' data-channel="{stroke.channel}"' if stroke.channel else ""
    return f"<path {names}{channel} {look}><title>{_text(stroke.title)}</title></path>"


def _plate(plate: Plate) -> str:
    left, top = plate.x - plate.width / 2, plate.y - plate.height / 2
    box = f'x="{_n(left)}" y="{_n(top)}" width="{_n(plate.width)}" height="{_n(plate.height)}" rx="3.5"'
    parts = [
        f'<g class="node" data-node="{_text(plate.name)}"><title>{_text(plate.title)}</title>',
        f'<rect class="ground" {box} fill="{PAPER}"/>',
    ]
    for i, fill in enumerate(plate.fills):
        share = plate.width / len(plate.fills)
        parts.append(
            f'<rect class="role" x="{_n(left + i * share)}" y="{_n(top)}" width="{_n(share)}" '
            f'height="{_n(plate.height)}" rx="{3.5 if len(plate.fills) == 1 else 0}" fill="{fill}" fill-opacity="{TINT}"/>'
        )
    parts.append(f'<rect class="box" {box} fill="none" stroke="{INK}" stroke-width="0.8"/>')
    middle = plate.y - (4.2 if plate.channels else 0.0)
    parts.append(
        f'<text class="name" x="{_n(plate.x)}" y="{_n(middle)}" dy="0.36em" font-size="8" '
        f'text-anchor="middle" fill="{INK}">{_text(plate.name)}</text>'
    )
    for i, (channel, read) in enumerate(plate.channels):
        x = plate.x + (i - 1) * plate.width / 3
        ink = f'fill="{INK}" font-weight="bold"' if read else f'fill="{PLAIN}" fill-opacity="0.55"'
        parts.append(
            f'<text class="channel {"read" if read else "idle"}" x="{_n(x)}" y="{_n(plate.y + 6.8)}" dy="0.3em" font-size="5.6" '
            f'text-anchor="middle" {ink}>{channel}</text>'
        )
    return "".join(parts) + "</g>"


def _rectangle(rectangle: Rectangle) -> str:
    opacity = "" if rectangle.opacity == 1 else f' fill-opacity="{_n(rectangle.opacity)}"'
    return (
        f'<rect x="{_n(rectangle.x)}" y="{_n(rectangle.y)}" width="{_n(rectangle.width)}" '
        f'height="{_n(rectangle.height)}" rx="2" fill="{rectangle.colour}"{opacity}/>'
    )


def _words(words: Words) -> str:
    weight = ' font-weight="bold"' if words.weight == "bold" else ""
    halo = (
        f' stroke="{PAPER}" stroke-width="2" paint-order="stroke"'
        if words.kind == "position"
        else ""
    )
    kind = f"{words.kind} {'soft' if words.colour == SOFT else 'ink'}"
    return (
        f'<text class="{kind}" x="{_n(words.x)}" y="{_n(words.y)}" dy="0.35em" font-size="{_n(words.size)}" '
        f'text-anchor="{words.anchor}" fill="{words.colour}"{weight}{halo}>{_text(words.text)}</text>'
    )
