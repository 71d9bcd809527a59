"""An evaluation as a figure: faithful beside chance, complete, minimal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp.circuits.shares import share
from interp.figures.style import PALETTE, sheet, wrapped

if TYPE_CHECKING:
    from interp.circuits.evaluation_result import Chance, CircuitEvaluation

__all__ = ["draw"]

_MOST = 24  # nodes that fit
_GREY, _INK = "#a9b4bd", "#222222"
_KINDS = {"none": (_INK, "*"), "random": (_GREY, "o"), "greedy": (PALETTE[1], "^")}


def draw(found: CircuitEvaluation, title: str | None) -> Figure:
    """Three panels: faithfulness with chance, F(C \\ K) against F(M \\ K), the nodes' minimality."""
    rows = min(len(found.nodes), _MOST)
    with sheet(9.6, max(3.6, 1.5 + 0.17 * rows)) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.15, 1.25))
        for axes in (left, middle, right):
            axes.tick_params(labelsize=7.5)
        _faithfulness(left, found)
        _completeness(middle, found)
        _minimality(right, found)
        figure.suptitle(wrapped(title or _title(found), 9.2), fontsize=10, fontweight="bold")
    return figure


def _title(found: CircuitEvaluation) -> str:
    return (
        f"{found.circuit} in {found.provenance.model}: {found.n_edges:,} of {found.n_graph:,} edges "
        f"({found.n_edges / found.n_graph:.1%}), {found.ablation} ablation, {len(found.full)} prompts"
    )


def _faithfulness(axes: Axes, found: CircuitEvaluation) -> None:
    whole = found.faithfulness_interval()
    jitter = np.random.default_rng(0)
    rest = float(share(found.complement, found.full, found.empty, min_gap=found.min_gap))
    axes.axhline(1, color=_INK, linewidth=0.8, linestyle="--")
    axes.axhline(0, color=_INK, linewidth=0.8, linestyle=":")
    ends = [[max(0.0, float(whole.mean - whole.low))], [max(0.0, float(whole.high - whole.mean))]]
    axes.errorbar([0], [float(whole.mean)], yerr=np.nan_to_num(ends), fmt="o", color=PALETTE[0],
                  capsize=3, markersize=6)  # fmt: skip
    axes.annotate(f"{float(whole.mean):.2f}", (0, float(whole.mean)), xytext=(7, 0),
                  textcoords="offset points", fontsize=7.5, va="center")  # fmt: skip
    axes.plot([1], [rest], "s", color=PALETTE[3], markersize=6)
    kinds: tuple[Chance, Chance] = ("connected", "edges")
    for place, of in enumerate(kinds, 2):
        drawn = found.random_faithfulness(of).tolist()
        x = place + jitter.uniform(-0.18, 0.18, len(drawn))
        axes.plot(x, drawn, "o", color=_GREY, markersize=3.2, alpha=0.8)
        if drawn:
            axes.annotate(f"p {found.p_value(of):.2g}", (place, 1.0), xytext=(0, 3),
                          textcoords="offset points", fontsize=7, ha="center")  # fmt: skip
    axes.set_xticks(range(4), ["circuit", "all but\ncircuit", "random\nconnected", "random\nedges"],
                    fontsize=7)  # fmt: skip
    axes.set_xlim(-0.5, 3.5)
    axes.set_ylabel("share of the gap (0 empty, 1 model)", fontsize=8)
    axes.set_title("faithful?", fontsize=9)


def _completeness(axes: Axes, found: CircuitEvaluation) -> None:
    circuit, model = found.without.double().mean(-1).numpy()
    low, high = float(min(*circuit, *model, 0)), float(max(*circuit, *model, 0))
    margin = 0.06 * (high - low or 1.0)
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color=_INK, linewidth=0.8, linestyle="--", zorder=1)
    for kind in dict.fromkeys(found.kinds):
        chosen = [i for i, own in enumerate(found.kinds) if own == kind]
        colour, mark = _KINDS.get(kind, (PALETTE[2], "D"))
        label = {"none": "K = ∅", "random": "random K", "greedy": "greedy K"}.get(kind, "a role")
        known = label in axes.get_legend_handles_labels()[1]
        axes.plot(model[chosen], circuit[chosen], mark, color=colour, linestyle="none",
                  markersize=8 if kind == "none" else 4.5, label=None if known else label,
                  zorder=3 if kind == "none" else 2)  # fmt: skip
    worst = int(np.abs(circuit - model).argmax())
    name = " ".join(found.sets[worst]) or "∅"
    axes.annotate(f"worst: {name if len(name) < 26 else name[:25] + '…'}",
                  (model[worst], circuit[worst]), xytext=(0.03, 0.97), textcoords="axes fraction",
                  fontsize=7, va="top",
                  arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.7})  # fmt: skip
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_xlabel(f"the model without K ({found.metric}, {found.unit})", fontsize=8)
    axes.set_ylabel("the circuit without K", fontsize=8)
    axes.set_title(
        f"complete? worst difference {found.incompleteness:.2g} {found.unit}", fontsize=9
    )
    axes.legend(frameon=False, fontsize=7, loc="lower right")


def _minimality(axes: Axes, found: CircuitEvaluation) -> None:
    scores = found.minimality().tolist()
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    cut = order[:_MOST]
    needed = set(found.nodes) - set(found.superfluous())
    places = range(len(cut))
    axes.barh(places, [scores[i] for i in cut], height=0.7,
              color=[PALETTE[0] if found.nodes[i] in needed else _GREY for i in cut])  # fmt: skip
    axes.axvline(found.threshold * found.scale, color=_INK, linewidth=0.9, linestyle="--",
                 label=f"{found.threshold:.0%} of |F(M)|" if _of_full(found) else "threshold")  # fmt: skip
    if len(found.node_chance):
        axes.axvline(found.chance_level(), color=PALETTE[1], linewidth=0.9,
                     label="non-members put in, 95%")  # fmt: skip
    axes.set_yticks(places, [found.nodes[i] for i in cut], fontsize=6.5)
    axes.set_ylim(max(len(cut), 3) - 0.4, -0.6)
    axes.set_xlabel(f"largest change without the node ({found.unit})", fontsize=8)
    more = f" ({len(order) - _MOST} smaller not shown)" if len(order) > _MOST else ""
    needless = len(found.superfluous())
    axes.set_title(f"minimal? {needless} of {len(order)} nodes not needed{more}", fontsize=9)
    axes.legend(frameon=False, fontsize=7, loc="lower right")


def _of_full(found: CircuitEvaluation) -> bool:
    return abs(float(found.full.double().mean())) >= found.min_gap
