"""Figures: pure functions from arrays and labels to a Matplotlib Figure, never shown."""

from interp.figures.bars import bars
from interp.figures.heatmap import heatmap
from interp.figures.lens_table import lens_table
from interp.figures.lines import lines

__all__ = ["bars", "heatmap", "lens_table", "lines"]
