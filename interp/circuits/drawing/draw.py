"""``draw``: a circuit as a picture, for a notebook (SVG) and for a paper (SVG, PDF, PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.circuits.drawing.layout import Layout, layout
from interp.circuits.drawing.scene import Scene, heading, pen_for, scene
from interp.circuits.drawing.scores import EdgeValues
from interp.circuits.drawing.svg import svg
from interp.errors import CircuitError
from interp.results import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Drawing", "draw"]


@dataclass(frozen=True, eq=False, repr=False)
class Drawing:
    """A picture of a circuit. A notebook shows it; :meth:`save` writes it.

    Attributes:
        scene: its marks, with their places in points.
        width: in inches; None: the natural one, at which names of nodes are 8 points.
    """

    scene: Scene
    width: float | None = None

    def __repr__(self) -> str:
        inches = self.width or self.scene.width / 72
        return (
            f"Drawing({len(self.scene.plates)} nodes, {len(self.scene.edges)} edges; {inches:.1f} in wide; "
            "shown in a notebook, or .save('circuit.svg'))"
        )

    @cached_property
    def svg(self) -> str:
        """The picture as SVG text. The same circuit and scores give the same text."""
        return svg(self.scene, width=self.width)

    def _repr_svg_(self) -> str:
        return self.svg

    def figure(self) -> Figure:
        """The picture as a matplotlib figure, with the same layout."""
        from interp.circuits.drawing.figure import figure

        return figure(self.scene, width=self.width)

    def save(self, path: str | Path) -> Path:
        """Write the picture, whole or not at all: ``.svg``, or ``.pdf`` and ``.png`` by matplotlib.

        Raises:
            CircuitError: the name ends in something else.
            ResultError: the place cannot be written.
        """
        kind = Path(path).suffix.lower()
        if kind == ".svg":
            return write_atomically(path, self.svg.encode())
        if kind not in (".pdf", ".png"):
            raise CircuitError(
                f"a drawing cannot be saved as {str(path)!r}; expected a name that ends in .svg, .pdf or .png."
            )
        return write_atomically(path, _printed(self.figure(), kind[1:]))


def draw(
    circuit: Any, *, scores: Any = None, title: str | None = None, width: float | None = None,
    top: int | None = None,
) -> Drawing:  # fmt: skip
    """Draw a circuit in layers, from the embeddings at the bottom to the logits at the top.

    An edge's width is proportional to its |score| and its colour shows the sign: blue is negative (ablating it
    lowers the metric: it helps), red positive. A head is entered left by what its queries
    read, in the middle by its keys' and right by its values'. Nodes have the colours of their roles.

    >>> circuit.draw(scores=scores).save("circuit.pdf")                     # doctest: +SKIP

    Args:
        circuit: an :class:`interp.circuits.Circuit`.
        scores: of edges: what ``interp.attribute(model, prompts, "edges")`` returns, or a mapping; None:
            the circuit's own, or edges all alike if it has none.
        title: over the drawing; None: the circuit's name and model. Under it stand metric, ablation
            and the number of edges in any case.
        width: in inches; None: the natural one, at which the names of nodes are 8 points.
        top: draw only the edges of the largest \\|score\\|, and say so. None: all of them.

    Raises:
        CircuitError: nothing to draw, too many edges to see, ``top`` without scores, or scores of
            other edges.
    """
    own = getattr(circuit, "scores", None) if scores is None else scores
    values = EdgeValues.read(own).for_circuit(circuit)
    edges = shown(circuit, values, top)
    placed = placed_for(circuit, edges, values)
    name, lead = heading(circuit, len(edges))
    return Drawing(scene(placed, values, circuit.roles, title=title or name, lead=lead), width)


def placed_for(circuit: Any, edges: Sequence[str], values: EdgeValues) -> Layout:
    """The layout of some edges of a circuit's graph."""
    pen = pen_for(edges, values)
    widths = {edge: pen.width(values.of.get(edge)) for edge in edges}
    return layout(edges, parallel=bool(circuit.shape.get("parallel")), widths=widths)


def shown(circuit: Any, values: EdgeValues, top: int | None) -> Sequence[str]:
    """The circuit's edges, in the order of its graph, or its ``top`` ones."""
    edges = [edge for edge in circuit.graph.edges if edge in circuit.edges]
    if top is None:
        return edges
    if top < 1 or not values.of:
        raise CircuitError(
            f"top={top} needs at least 1 edge and scores to choose by; "
            + ("give scores=." if not values.of else "expected top=1 or more.")
        )
    return values.ranked(edges)[:top]


def _printed(figure: Figure, kind: str) -> bytes:
    """A figure as a file's bytes, without a date, so that equal figures are equal files."""
    import io

    import matplotlib

    from interp.figures.style import written

    if kind == "png":
        return written(figure)
    out = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(out, format="pdf", metadata={"CreationDate": None})
    return out.getvalue()
