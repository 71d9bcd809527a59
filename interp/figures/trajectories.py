"""How predictions develop over layers: a small panel for each number, a curve for each lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp.figures.labels import drop, put_x
from interp.figures.style import PALETTE, WIDTH, sheet, wrapped
from interp.intervals import Interval

__all__ = ["trajectories"]

_NAMES: Final = {
    "probability": "probability of the answer",
    "rank": "rank of the answer (1 is the top)",
    "kl": "KL(output ‖ lens) (nats)",
    "entropy": "entropy (nats)",
}
_FONT = 7.5


def trajectories(
    steps: Sequence[str],
    curves: Sequence[tuple[str, Sequence[int], dict[str, Interval]]],
    *,
    title: str,
) -> Figure:
    """Draw a panel for each of the numbers that any curve has, ranks on a logarithmic scale.

    Args:
        steps: labels along the axis of layers.
        curves: for each a name, where on that axis its points stand, and a mean with its interval
            (the band) for each of ``probability``, ``rank``, ``kl``, ``entropy``.
    """
    shown = [name for name in _NAMES if any(name in numbers for _, _, numbers in curves)]
    down = -(-len(shown) // 2)
    across = min(2, len(shown))
    cell = (WIDTH / across - 0.75) / max(1, len(steps))
    height = 0.75 + down * (1.55 + drop(steps, cell, _FONT)) + 0.17 * ((len(curves) + 1) // 2)
    with sheet(WIDTH, height) as figure:
        panels = figure.subplots(down, across, squeeze=False)
        for axes, name in zip(panels.flat, shown, strict=False):
            for i, (label, at, numbers) in enumerate(curves):
                if name in numbers:
                    _curve(axes, at, numbers[name], label, PALETTE[i % len(PALETTE)])
            axes.set_title(_NAMES[name], fontsize=8.5, fontweight="normal")
            axes.set_xlim(-0.3, len(steps) - 0.7)
            put_x(axes, steps, cell, _FONT)
            axes.tick_params(axis="y", labelsize=_FONT)
            _scale(axes, name)
        figure.suptitle(wrapped(title, WIDTH - 0.3), fontsize=10, fontweight="bold")
        if len(curves) > 1:
            handles, labels = panels.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=2)
    return figure


def _curve(axes: Axes, at: Sequence[int], span: Interval, label: str, colour: str) -> None:
    axes.plot(at, span.mean.tolist(), marker="o", markersize=3.5, color=colour, label=label)
    if not bool(span.low.isnan().any()):
        axes.fill_between(
            at, span.low.tolist(), span.high.tolist(), color=colour, alpha=0.18, linewidth=0
        )


def _scale(axes: Axes, name: str) -> None:
    if name == "rank":
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8)
        axes.invert_yaxis()  # up is better, as for probability
    elif name == "probability":
        axes.set_ylim(-0.03, 1.03)
    else:
        axes.set_ylim(bottom=0)
