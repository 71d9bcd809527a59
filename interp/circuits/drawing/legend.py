"""The legend under a drawing: what colours, widths, places and patches mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from interp.circuits.drawing.layout import text_width
from interp.circuits.drawing.look import INK, SOFT, TINT, Pen
from interp.circuits.drawing.marks import Rectangle, Stroke, Words
from interp.circuits.drawing.scores import EdgeValues

__all__ = ["Legend", "legend"]

_SIZE: Final = 7.0
_LINE: Final = 12.0
_SAMPLE: Final = 18.0  # points: a sample's length


@dataclass
class Legend:
    """Marks from (0, 0) down to ``height``."""

    width: float
    words: list[Words] = field(default_factory=list)
    samples: list[Stroke] = field(default_factory=list)
    swatches: list[Rectangle] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return self.y + (_LINE if self.x else 0.0)

    def turn(self) -> None:
        """Begin a new line."""
        self.x, self.y = 0.0, self.height

    def text(
        self, text: str, *, before: float = 0.0, after: float = 10.0, colour: str = SOFT
    ) -> float:
        """Write where there is room; the place of what stands ``before`` it is returned."""
        wide = before + text_width(text, _SIZE)
        if self.x and self.x + wide > self.width:
            self.turn()
        at, room = self.x, self.width - self.x - before
        lines = _broken(text, room)
        for i, line in enumerate(lines):
            if i:
                self.turn()
            self.words.append(
                Words(self.x + before, self.y + _LINE / 2, line, _SIZE, "start", colour, "legend")
            )
            self.x += before + text_width(line, _SIZE) + after
        return at

    def line(self, text: str, pen: Pen, score: float | None) -> None:
        at = self.text(text, before=_SAMPLE + 4.0, colour=INK)
        y = self.y + _LINE / 2
        points = tuple((at + _SAMPLE * i / 3, y) for i in range(4))
        self.samples.append(
            Stroke(points, pen.colour(score), pen.width(score), 1.0, lean=pen.lean(score))
        )

    def patch(self, text: str, colour: str) -> None:
        at = self.text(text, before=13.0, colour=INK)
        self.swatches.append(Rectangle(at, self.y + _LINE / 2 - 4.0, 9.0, 8.0, colour, TINT))


def _broken(text: str, room: float) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        if lines and text_width(f"{lines[-1]} {word}", _SIZE) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def legend(
    pen: Pen, values: EdgeValues, roles: Mapping[str, str], *, width: float, channels: bool,
    drawn: Sequence[str], notes: Sequence[str] = (),
) -> Legend:  # fmt: skip
    """Say what is drawn; only what is there is explained.

    Args:
        roles: each role's colour.
        width: of the sheet, in points.
        channels: whether heads read anything.
        drawn: the edges that are drawn.
    """
    out = Legend(width)
    for role, patch in roles.items():
        out.patch(role, patch)
    out.turn()
    if pen.most > 0:
        _scores(out, pen, values, drawn)
    if channels:
        out.text("edges go upwards; into a head: read by its queries (q), keys (k) or values (v)")
    for note in notes:
        out.text(note)
    out.turn()
    return out


def _scores(out: Legend, pen: Pen, values: EdgeValues, drawn: Sequence[str]) -> None:
    scores = [values.of[edge] for edge in drawn if edge in values.of]
    signs = [sign for sign in (-1, 1) if any(sign * score > 0 for score in scores)]
    ends = ("", "", "") if not pen.signed else ("", " (hinders)", " (helps)")
    for sign in signs:
        for share in (1.0, 0.25)[::-sign]:
            score = sign * share * pen.most
            plain = float(f"{score:.2g}")  # two digits, and no exponent where it can be
            text = (f"{plain:+g}" if pen.signed else f"{plain:g}").replace("-", "−")
            out.line(text + (ends[sign] if share == 1 else ""), pen, score)
    if len(scores) < len(drawn):
        out.line("no score", pen, None)
    out.turn()
    out.text(f"score: {values.what}")
    out.turn()
    if pen.opacity(0.0) < 0.9:
        out.text("the smaller the score, the fainter the edge")
