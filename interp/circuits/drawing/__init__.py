"""Circuits to look at: a layered picture for a paper, and a page to look into.

No graph library is needed: the rows of the picture are the model's own.
"""

from interp.circuits.drawing.draw import Drawing, draw

__all__ = ["Drawing", "draw"]
