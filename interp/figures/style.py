"""One look for all figures: readable at the width of a paper's column, no chart junk."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "ATTENTION", "DIVERGING", "PALETTE", "SEQUENTIAL", "WIDTH", "canvas", "save", "sheet", "wrapped",
    "written",
]  # fmt: skip

DIVERGING: Final = "RdBu_r"  # red is positive, blue negative, white zero
SEQUENTIAL: Final = "viridis"
ATTENTION: Final = "Blues"  # where most cells are zero, zero is paper
WIDTH: Final = 5.5  # inches: the text of a page, where labels are read at their own size
PALETTE: Final = ("#33658a", "#d1495b", "#66a182", "#edae49", "#5d3a6e", "#7a7a7a")

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "text.parse_math": False,  # tokens and titles may hold a $
    "svg.hashsalt": "interp",  # the same figure gives the same bytes
    "svg.fonttype": "none",
}


def wrapped(text: str, inches: float, *, per_inch: float = 13.0, hyphens: bool = False) -> str:
    """Text broken into lines that fit a width; at hyphens too, if asked for."""
    return textwrap.fill(text, max(16, int(inches * per_inch)), break_on_hyphens=hyphens)


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A sheet with one pair of axes."""
    with sheet(width, height) as figure:
        axes = figure.subplots()
        axes.tick_params(labelsize=8)  # said outright, else other ticks are drawn than laid out
        yield figure, axes


@contextmanager
def sheet(width: float, height: float) -> Iterator[Figure]:
    """A figure of a size in inches, laid out and closed (so that nothing shows it) at the end."""
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # tokens come in any script
        figure = plt.figure(figsize=(width, height), layout="constrained")
        try:
            yield figure
            figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
            figure.set_layout_engine("none")  # else each drawing moves it a little
        finally:
            plt.close(figure)


def written(figure: Figure) -> bytes:
    """A figure as PNG, without a date, for a page that holds its own pictures."""
    out = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def save(figure: Figure, stem: str | Path) -> tuple[Path, Path]:
    """Write ``stem.png`` and ``stem.svg``, without a date, so that equal figures are equal files."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg
