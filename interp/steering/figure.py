"""Dose-response curves, a panel for each site."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from interp.errors import ResultError
from interp.figures.style import PALETTE, sheet, wrapped

__all__ = ["dose_response"]

_OWN, _NULL = PALETTE[0], PALETTE[5]
_MOST = 8  # panels in a row


def dose_response(
    strengths: Sequence[int | float],
    sites: Sequence[str],
    values: Float[Tensor, "site strength"],
    interval: tuple[Float[Tensor, "site strength"], Float[Tensor, "site strength"]],
    control: Float[Tensor, "site draw strength"],
    *,
    baseline: float,
    title: str,
    unit: str,
    side: Float[Tensor, "site strength"] | None = None,
    side_control: Float[Tensor, "site draw strength"] | None = None,
) -> Figure:
    """Draw the metric against strength, with the band from the least to the greatest random vector.

    Args:
        interval: low and high of ``values``.
        baseline: the unsteered metric, a dotted line.
        side: KL on neutral text, for a second row.

    Raises:
        ResultError: more sites than a figure can show.
    """
    if len(sites) > _MOST:
        raise ResultError(
            f"{len(sites)} sites do not fit in one figure of at most {_MOST} panels: steer fewer, "
            "or read summary()."
        )
    rows = 1 if side is None else 2
    width = 1.5 + max(1.75 * len(sites), 3.0)
    with sheet(width, 0.9 + 1.9 * rows) as figure:
        grid = figure.subplots(rows, len(sites), squeeze=False, sharey="row", sharex=True)
        for i, site in enumerate(sites):
            axes = grid[0][i]
            _curve(axes, strengths, values[i], control[i], (interval[0][i], interval[1][i]))
            axes.axhline(baseline, color="#222222", linewidth=0.8, linestyle=":")
            axes.set_title(site)
            if side is not None and side_control is not None:
                _curve(grid[1][i], strengths, side[i], side_control[i], None)
                grid[1][i].set_ylim(bottom=0)
            grid[-1][i].set_xlabel("strength")
        grid[0][0].set_ylabel(wrapped(unit, 1.6))
        if side is not None:
            grid[1][0].set_ylabel(wrapped("KL on neutral text (nats)", 1.4))
        handles, labels = (list(reversed(part)) for part in grid[0][0].get_legend_handles_labels())
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(wrapped(title, width), fontweight="bold", fontsize=10)
    return figure


def _curve(
    axes: Axes,
    strengths: Sequence[int | float],
    values: Float[Tensor, " strength"],
    control: Float[Tensor, "draw strength"],
    interval: tuple[Tensor, Tensor] | None,
) -> None:
    x = list(strengths)
    if len(control):
        low, high = control.amin(0).tolist(), control.amax(0).tolist()
        axes.fill_between(x, low, high, color=_NULL, alpha=0.3, linewidth=0,
                          label=f"range of {len(control)} random vectors")  # fmt: skip
        axes.plot(x, control.mean(0).tolist(), color=_NULL, linewidth=1)
    if interval is not None:
        low, high = interval[0].tolist(), interval[1].tolist()
        axes.fill_between(x, low, high, color=_OWN, alpha=0.2, linewidth=0, label="95% interval")
    axes.plot(x, values.tolist(), color=_OWN, marker="o", markersize=4, label="vector")
    axes.axvline(0, color="#222222", linewidth=0.4)
    axes.set_xticks(x, [f"{dose:g}" for dose in x])
