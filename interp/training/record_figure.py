"""Figures of training runs: the curves of one, the firing of its features, several against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from interp.errors import ResultError
from interp.figures.labels import short
from interp.figures.style import PALETTE, WIDTH, canvas, sheet, wrapped

__all__ = ["curves", "density", "frontier"]

_FONT: Final = 7.5
_MARKS: Final = ("o", "s", "^", "D", "v", "P")
_LOWEST: Final = 1e-8  # a moving average of what once fired falls for ever
_FAR: Final = 3.0  # times: numbers at least so far apart have a logarithmic axis

Curves = Mapping[str, Sequence[int | float]]


def curves(
    steps: Sequence[int], tokens: Sequence[int | float] | None, metrics: Curves, *, title: str
) -> Figure:
    """A panel for each thing to watch in a run, over tokens, or over steps if nobody counted those.

    Raises:
        ResultError: none of the metrics is one to watch.
    """
    panels = [panel for panel in _panels(metrics) if panel[1]]
    if not panels or not steps:
        raise ResultError(
            f"nothing to draw was logged: there is {', '.join(metrics) or 'nothing'}; expected some of "
            "loss, fvu, l0, dead, lr, coefficient, grad_norm."
        )
    x, x_name = _across(steps, tokens)
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    with sheet(WIDTH, 0.65 + 1.5 * down) as figure:
        grid = figure.subplots(down, across, squeeze=False)
        for axes, (heading, lines, scale) in zip(grid.flat, panels, strict=False):
            _panel(axes, x, heading, lines, scale)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel(x_name, fontsize=8.5)
        figure.suptitle(wrapped(title, WIDTH - 0.3), fontsize=10, fontweight="bold")
    return figure


def _panels(metrics: Curves) -> list[tuple[str, Curves, str]]:
    """Heading, curves and scale of each panel."""
    told = (
        ("loss (normalised units)", "loss", "log"),
        ("FVU (1 is the mean's)", "fvu", "log"),
        ("active features per token (L0)", "l0", "zero"),
        ("dead features", "dead", "percent"),
    )
    panels = [
        (heading, {name: metrics[name]} if name in metrics else {}, scale)
        for heading, name, scale in told
    ]
    norm = {"grad_norm": metrics["grad_norm"]} if "grad_norm" in metrics else {}
    return [*panels, ("schedules", _schedules(metrics), "peak"),
            ("norm of the gradient", norm, "log")]  # fmt: skip


def _schedules(metrics: Curves) -> dict[str, list[float]]:
    """What changes by plan, each divided by its peak, which its label tells."""
    out = {}
    for name, label in (("lr", "learning rate"), ("coefficient", "sparsity")):
        peak = np.nanmax(metrics[name], initial=0.0) if name in metrics else 0.0
        if peak > 0:
            out[f"{label} (1 = {peak:.2g})"] = [value / peak for value in metrics[name]]
    return out


def _across(
    steps: Sequence[int], tokens: Sequence[int | float] | None
) -> tuple[Sequence[int | float], str]:
    if tokens is None:
        return steps, "steps"
    unit, name = (1e6, "million tokens") if max(tokens) >= 2e6 else (1e3, "thousand tokens")
    return [token / unit for token in tokens], name


def _panel(axes: Axes, x: Sequence[int | float], heading: str, lines: Curves, scale: str) -> None:
    for i, (label, values) in enumerate(lines.items()):
        axes.plot(x, list(values), color=PALETTE[i], linewidth=1.2, label=label,
                  marker="o" if len(x) < 12 else None, markersize=3, clip_on=False)  # fmt: skip
    numbers = np.asarray(list(lines.values()), dtype=float)
    if scale == "log":
        _logarithmic(axes, "y", numbers)
    elif scale == "percent":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        axes.set_ylim(0, max(0.01, 1.08 * np.nanmax(numbers, initial=0.0)))
    else:
        axes.set_ylim(0, 1.12 * (np.nanmax(numbers, initial=0.0) or 1.0))
    axes.set_title(heading, fontsize=8.5, fontweight="normal")
    axes.tick_params(labelsize=_FONT, which="both")
    if scale == "peak":
        axes.legend(frameon=False, fontsize=6.5, loc="best", handlelength=1.2)


def _logarithmic(axes: Axes, which: Literal["x", "y"], numbers: np.ndarray) -> None:
    """A logarithmic axis, if the numbers lie far enough apart, with ticks as plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    least, most = np.nanmin(numbers, initial=np.inf), np.nanmax(numbers, initial=0.0)
    if not 0 < _FAR * least <= most:
        axis.set_major_locator(MaxNLocator(5))
        return
    axes.set(**{f"{which}scale": "log"})
    far = float(most / least)
    subs = (1.0,) if far > 300 else (1.0, 2.0, 5.0) if far > 12 else (1.0, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def density(firing: np.ndarray, *, live: float, title: str) -> Figure:
    """A histogram of log10 firing frequency; the title counts live, rare and silent features.

    Silent is a share below one in a hundred million, which no run is long enough to see.
    """
    seen = np.log10(firing[firing >= _LOWEST])
    lowest = min(math.floor(seen.min(initial=0.0)), math.log10(live) - 1)
    edges = np.arange(lowest, 0.01, 0.2)
    heights, edges = np.histogram(seen, bins=np.append(edges[edges < -0.01], 0.0))
    line, silent = math.log10(live), len(firing) - len(seen)
    alive = int((firing > live).sum())
    counted = f"{alive:,} of {len(firing):,} live, {len(seen) - alive:,} rarer, {silent:,} silent"
    with canvas(WIDTH, 2.9) as (figure, axes):
        colours = [PALETTE[0] if edge >= line - 1e-9 else PALETTE[5] for edge in edges[:-1]]
        axes.bar(edges[:-1], heights, np.diff(edges) * 0.94, align="edge", color=colours)
        axes.axvline(line, color="#222222", linewidth=1, linestyle="--")
        axes.annotate(f"live: on more than 1 in {1 / live:,.0f} tokens →", (line, 0.95),
                      xycoords=("data", "axes fraction"), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        axes.set_xlabel("log10 share of tokens on which a feature is active")
        axes.set_ylabel("features")
        axes.set_ylim(0, 1.2 * max(1, heights.max()))
        axes.set_title(f"{wrapped(title, WIDTH - 0.6)}\n{counted}")
    return figure


def frontier(ends: Sequence[tuple[str, float, float]], *, title: str) -> Figure:
    """Points (name, L0, FVU), and a line through those that no other beats on both.

    Raises:
        ResultError: more points than can be told apart, or one without a number.
    """
    most = len(PALETTE) * len(_MARKS)
    bad = [name for name, l0, fvu in ends if not (math.isfinite(l0) and math.isfinite(fvu))]
    if len(ends) > most or bad:
        raise ResultError(
            f"{len(ends)} dictionaries, {len(bad)} of them without a finite L0 and FVU "
            f"({', '.join(bad[:3])}); expected at most {most}, each with both."
        )
    best = sorted((l0, fvu) for _, l0, fvu in ends if not any(
        a <= l0 and b <= fvu and (a, b) != (l0, fvu) for _, a, b in ends))  # fmt: skip
    width = min(7.2, 4.4 + 0.062 * max(len(short(name, 40)) for name, _, _ in ends))
    with canvas(width, max(3.0, 0.5 + 0.19 * len(ends))) as (figure, axes):
        axes.plot(*zip(*best, strict=True), color="#999999", linewidth=1, linestyle="--", zorder=1,
                  label="frontier")  # fmt: skip
        for i, (name, l0, fvu) in enumerate(ends):
            axes.scatter([l0], [fvu], s=30, color=PALETTE[i % len(PALETTE)], zorder=2,
                         marker=_MARKS[(i // len(PALETTE) + i) % len(_MARKS)], label=short(name, 40))  # fmt: skip
        _logarithmic(axes, "x", np.asarray([l0 for _, l0, _ in ends]))
        _logarithmic(axes, "y", np.asarray([fvu for _, _, fvu in ends]))
        axes.set_xlabel("active features per token (L0)")
        axes.set_ylabel("fraction of variance unexplained (FVU)")
        axes.set_title(wrapped(title, 3.6))
        figure.legend(loc="outside right upper", frameon=False)
    return figure
