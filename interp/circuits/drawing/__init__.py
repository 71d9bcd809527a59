"""Circuits to look at: a layered picture for a paper, and a page to look into.

No graph library is needed: the rows of the picture are the model's own. :func:`draw` makes a
:class:`Drawing` (SVG, PDF, PNG), :func:`page` a :class:`CircuitPage` (one HTML file that loads nothing).
"""

from interp.circuits.drawing.draw import Drawing, draw
from interp.circuits.drawing.page import CircuitPage, page

__all__ = ["CircuitPage", "Drawing", "draw", "page"]
