"""Figures: pure functions from arrays and labels to a Matplotlib Figure, never shown."""

from interp.figures.attention_patterns import attention_patterns
from interp.figures.bars import bars
from interp.figures.curves import curves
from interp.figures.grid import grid
from interp.figures.heatmap import heatmap
from interp.figures.lens_table import lens_table
from interp.figures.lines import lines
from interp.figures.panels import panels
from interp.figures.points import points
from interp.figures.ranked import ranked
from interp.figures.scatter import scatter
from interp.figures.tracing import tracing

__all__ = [
    "attention_patterns", "bars", "curves", "grid", "heatmap", "lens_table", "lines", "panels", "points",
    "ranked", "scatter", "tracing",
]  # fmt: skip
