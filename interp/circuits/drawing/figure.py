"""A scene as a matplotlib figure, for a paper's PDF or PNG: the same marks in the same places."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.patches import Rectangle as Patch
from matplotlib.path import Path

from interp.circuits.drawing.look import INK, PAPER, PLAIN, TINT
from interp.circuits.drawing.marks import Plate, Rectangle, Stroke, Words
from interp.circuits.drawing.scene import Scene
from interp.figures.style import sheet

__all__ = ["figure"]

_ACROSS: Final = {"start": "left", "middle": "center", "end": "right"}


def figure(scene: Scene, *, width: float | None = None) -> Figure:
    """Draw a scene; text grows and shrinks with it.

    Args:
        width: in inches; None: the natural one.
    """
    inches = scene.width / 72 if width is None else width
    with sheet(inches, inches * scene.height / scene.width) as out:
        out.set_layout_engine("none")  # every mark has its place already
        axes = out.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(0, scene.width)
        axes.set_ylim(scene.height, 0)
        _Brush(axes, inches * 72 / scene.width).paint(scene)
    return out


class _Brush:
    """Puts marks on axes whose unit is ``scale`` points. What is painted later lies over it."""

    def __init__(self, axes: Axes, scale: float) -> None:
        self.axes, self.scale, self.level = axes, scale, 1.0

    def paint(self, scene: Scene) -> None:
        for rectangle in scene.bands:
            self.rectangle(rectangle)
        for stroke in (*scene.edges, *scene.samples):
            self.stroke(stroke)
        for plate in scene.plates:
            self.plate(plate)
        for rectangle in scene.swatches:
            self.rectangle(rectangle)
        for words in scene.words:
            self.words(words)

    def _next(self) -> float:
        self.level += 1e-3
        return self.level

    def rectangle(self, mark: Rectangle) -> None:
        self.axes.add_patch(Patch(
            (mark.x, mark.y), mark.width, mark.height, facecolor=mark.colour, edgecolor="none",
            alpha=mark.opacity, zorder=self._next(),
        ))  # fmt: skip

    def stroke(self, mark: Stroke) -> None:
        codes = [Path.MOVETO, *[Path.CURVE4] * (len(mark.points) - 1)]
        self.axes.add_patch(PathPatch(
            Path(list(mark.points), codes), fill=False, edgecolor=mark.colour, alpha=mark.opacity,
            linewidth=mark.width * self.scale, capstyle="butt", zorder=self._next(),
            gid=mark.edge or None,
        ))  # fmt: skip

    def plate(self, mark: Plate) -> None:
        left, top = mark.x - mark.width / 2, mark.y - mark.height / 2
        self._box(left, top, mark, facecolor=PAPER, edgecolor="none")
        share = mark.width / max(len(mark.fills), 1)
        outline = self._box(left, top, mark, facecolor="none", edgecolor="none")
        for i, fill in enumerate(mark.fills):
            patch = Patch((left + i * share, top), share, mark.height, facecolor=fill, alpha=TINT,
                          edgecolor="none", zorder=self._next())  # fmt: skip
            self.axes.add_patch(patch)
            patch.set_clip_path(outline)
        self._box(left, top, mark, facecolor="none", edgecolor=INK).set_gid(mark.name)
        middle = mark.y - (4.2 if mark.channels else 0.0)
        self.text(mark.x, middle, mark.name, 8.0, INK)
        for i, (channel, read) in enumerate(mark.channels):
            self.text(mark.x + (i - 1) * mark.width / 3, mark.y + 6.8, channel, 5.6, INK if read else PLAIN,
                      weight="bold" if read else "normal", alpha=1.0 if read else 0.55)  # fmt: skip

    def _box(
        self, left: float, top: float, mark: Plate, *, facecolor: str, edgecolor: str
    ) -> FancyBboxPatch:
        box = FancyBboxPatch(
            (left, top), mark.width, mark.height, boxstyle="round,pad=0,rounding_size=3.5", zorder=self._next(),
            facecolor=facecolor, edgecolor=edgecolor, linewidth=0.8 * self.scale,
        )  # fmt: skip
        self.axes.add_patch(box)
        return box

    def words(self, mark: Words) -> None:
        self.text(mark.x, mark.y, mark.text, mark.size, mark.colour, across=_ACROSS[mark.anchor],
                  weight=mark.weight, halo=mark.kind == "position")  # fmt: skip

    def text(
        self, x: float, y: float, text: str, size: float, colour: str, *, across: str = "center",
        weight: str = "normal", alpha: float = 1.0, halo: bool = False,
    ) -> None:  # fmt: skip
        from matplotlib.patheffects import withStroke

        effects = [withStroke(linewidth=2 * self.scale, foreground=PAPER)] if halo else []
        self.axes.text(x, y, text, fontsize=size * self.scale, color=colour, ha=across, weight=weight, alpha=alpha,
                       va="center_baseline", path_effects=effects, zorder=self._next())  # fmt: skip
