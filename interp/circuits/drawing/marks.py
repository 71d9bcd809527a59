"""The marks of a drawing: strokes, plates, words and rectangles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Plate", "Rectangle", "Stroke", "Words"]

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A curve of cubic pieces: an edge, or a sample of one in the legend (whose names are empty).

    ``lean`` is the score as a share of the largest, -1 to 1, where there is one with a sign.
    """

    points: tuple[Point, ...]
    colour: str
    width: float
    opacity: float
    edge: str = ""
    title: str = ""
    source: str = ""
    node: str = ""
    channel: str | None = None
    lean: float | None = None

    def moved(self, x: float, y: float) -> Stroke:
        return replace(self, points=tuple((px + x, py + y) for px, py in self.points))


@dataclass(frozen=True)
class Plate:
    """A node. ``fills`` are its roles' colours; ``channels`` are q, k and v, and whether they are read."""

    name: str
    x: float
    y: float
    width: float
    height: float
    fills: tuple[str, ...]
    channels: tuple[tuple[str, bool], ...]
    title: str


@dataclass(frozen=True)
class Words:
    """A line of text; ``y`` is its middle."""

    x: float
    y: float
    text: str
    size: float
    anchor: Literal["start", "middle", "end"]
    colour: str
    kind: Literal["title", "row", "position", "legend"]
    weight: Literal["normal", "bold"] = "normal"

    def moved(self, x: float, y: float) -> Words:
        return replace(self, x=self.x + x, y=self.y + y)


@dataclass(frozen=True)
class Rectangle:
    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float = 1.0

    def moved(self, x: float, y: float) -> Rectangle:
        return replace(self, x=self.x + x, y=self.y + y)
