"""A faithfulness curve as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from interp.figures.style import PALETTE, canvas, wrapped

if TYPE_CHECKING:
    from interp.circuits.curve_result import FaithfulnessCurve

__all__ = ["draw"]

_GREY, _INK = "#9aa5ae", "#222222"
_ROOM = 0.09  # of the width, for one label


def draw(found: FaithfulnessCurve, title: str | None) -> Figure:
    """f over the share of edges, with its interval; grey: random rankings."""
    interval, x = found.interval(), list(found.fractions)
    with canvas(5.5, 3.4) as (figure, axes):
        axes.axhline(1, color=_INK, linewidth=0.8, linestyle="--")
        axes.axhline(0, color=_INK, linewidth=0.8, linestyle=":")
        for i, draw_ in enumerate(found.random_faithfulness.tolist()):
            label = f"random ranking, CPR {float(found.random_cpr.mean()):.3f}" if not i else None
            axes.plot(x, draw_, color=_GREY, linewidth=0.9, label=label)
        axes.fill_between(x, interval.low.tolist(), interval.high.tolist(), color=PALETTE[0],
                          alpha=0.15, linewidth=0)  # fmt: skip
        whole = x[-1] == 1  # else it ends at a circuit, and its area is no benchmark's
        areas = f", CPR {found.cpr:.3f}, CMD {found.cmd:.3f}" if whole else ""
        axes.plot(x, interval.mean.tolist(), "o-", color=PALETTE[0], markersize=4,
                  label=found.method + areas)  # fmt: skip
        if min(x) > 0:
            axes.set_xscale("log")
        ticks = _apart([math.log(k) for k in x] if min(x) > 0 else x)
        axes.set_xticks(
            [x[i] for i in ticks], [f"{x[i]:.2g}\n{found.counts[i]:,}" for i in ticks], fontsize=7
        )
        axes.minorticks_off()
        axes.set_xlabel(f"share of the {found.n_edges:,} edges kept, and their number")
        axes.set_ylabel("faithfulness (0 empty, 1 model)")
        own = f"{found.provenance.model}, {found.metric}, {found.ablation} ablation: {found.selection}"
        axes.set_title(wrapped(title or own, 5.0))
        figure.legend(frameon=False, fontsize=7.5, ncols=2, loc="outside lower center")
    return figure


def _apart(places: list[float]) -> list[int]:
    """Those of rising places, the last among them, whose labels do not run into each other."""
    room = _ROOM * (places[-1] - places[0])
    out = [len(places) - 1]
    for i in range(len(places) - 2, -1, -1):
        out += [i] if places[out[-1]] - places[i] >= room else []
    return out[::-1]
