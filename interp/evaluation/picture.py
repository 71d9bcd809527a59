"""The figure of an evaluation: how often features fire, and what is left of the model's loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from interp.evaluation.probing_result import SparseProbing
from interp.evaluation.result import Evaluation
from interp.figures.style import PALETTE, sheet, wrapped

__all__ = ["draw", "draw_probing"]

_LINES = 4  # parts that fit in one histogram
_BARS = (
    ("spliced in", "ce_spliced", "value"),
    ("mean-ablated", "ce_mean", "value"),
    ("zero-ablated", "ce_zero", "value"),
    ("null: outputs permuted", "ce_spliced", "permuted"),
    ("null: random directions", "ce_spliced", "random_dictionary"),
)
_COLOURS = (PALETTE[0], PALETTE[3], PALETTE[1], "#a9b4bd", "#6f7a83")


def draw(found: Evaluation, title: str | None) -> Figure:
    """Left the densities of features, right the losses of each row that has one."""
    rows = [
        i
        for i in range(len(found.rows))
        if found.value("ce_original", i) == found.value("ce_original", i)
    ]
    bars = [one for one in _BARS if one[2] in found.variants]
    height = max(3.6, 2.0 + 0.13 * len(rows) * (len(bars) + 1.5))
    with sheet(8.4, height) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        for axes in (left, right):
            axes.tick_params(labelsize=8)
        _densities(left, found, height - 1.6)
        _losses(right, found, rows, bars)
        figure.legend(*right.get_legend_handles_labels(), frameon=False, fontsize=7.5, ncols=3,
                      loc="outside lower right")  # fmt: skip
        figure.suptitle(wrapped(title or _title(found), 8.0), fontsize=10, fontweight="bold")
    return figure


def _title(found: Evaluation) -> str:
    row = len(found.rows) - 1 if len(found.parts) > 1 and found.rows[-1] == "together" else 0
    return (
        f"{found.rows[row]} in {found.provenance.model}: FVU {found.value('fvu', row):.3g}, L0 "
        f"{found.value('l0', row):.3g}, CE recovered {found.value('ce_recovered_mean', row):.3g} (mean), "
        f"{found.value('ce_recovered_zero', row):.3g} (zero); {found.tokens:,} tokens"
    )


def _densities(axes: Any, found: Evaluation, inches: float) -> None:
    """Histograms of log10 frequency, and of the first part under the null controls."""
    low = -np.log10(max(found.tokens, 10)) - 0.25
    edges = np.linspace(low, 0, 36)
    whole = f"{found.rows[0]} "  # said once, in the title
    shown = [("value", part, part.removeprefix(whole)) for part in found.parts[:_LINES]]
    shown += [
        (of, found.parts[0], f"null: {of.replace('_', ' ')}") for of in found.frequency_of[1:]
    ]
    for i, (of, part, name) in enumerate(shown):
        density = found.density(part, of=of)
        live = density[density > 0].double().log10().numpy()
        dead = 1 - len(live) / len(density)
        null = of != "value"
        axes.hist(
            live, bins=edges, histtype="stepfilled" if i == 0 else "step", label=f"{name}, {dead:.0%} dead",
            color=PALETTE[i % 5] if not null else "#222222", alpha=0.45 if i == 0 else 1.0,
            linestyle=":" if of == "random_model" else "--" if null else "-",
        )  # fmt: skip
    left_out = len(found.parts) - _LINES
    axes.set_xlabel("log10 share of tokens with the feature active")
    axes.set_ylabel("features")
    axes.set_title("how often features fire" + (f" (first {_LINES})" if left_out > 0 else ""))
    legend = min(0.6, (0.16 * len(shown) + 0.1) / inches)  # its share of the height
    axes.set_ylim(0, axes.get_ylim()[1] / (1 - legend))
    axes.legend(frameon=False, fontsize=7, loc="upper left")


def _losses(
    axes: Any, found: Evaluation, rows: list[int], bars: list[tuple[str, str, str]]
) -> None:
    """Cross-entropy of each row, the model's own as a line."""
    thickness = 1 / (len(bars) + 1.5)
    for k, (label, metric, of) in enumerate(bars):
        places = [n + (k - (len(bars) - 1) / 2) * thickness for n in range(len(rows))]
        ends = [found.interval(metric, i, of=of) for i in rows]
        values = np.array([float(one.mean) for one in ends])
        by = np.nan_to_num(np.array([float(one.high) for one in ends]) - values)
        axes.barh(
            places,
            values,
            height=thickness * 0.9,
            label=label,
            color=_COLOURS[_BARS.index(bars[k])],
        )
        axes.errorbar(
            values, places, xerr=by, fmt="none", ecolor="#222222", elinewidth=0.8, capsize=1.5
        )
        for place, value, half in zip(places, values, by, strict=True):
            axes.text(value + half, place, f" {value:.2f}", va="center", fontsize=6.5)
    own = found.value("ce_original", rows[0])
    axes.axvline(own, color="#222222", linewidth=1, linestyle="--", label=f"original, {own:.2f}")
    axes.set_yticks(range(len(rows)), [wrapped(found.rows[i], 1.5, hyphens=True) for i in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.08)
    axes.set_xlabel("next-token cross-entropy, nats")
    axes.set_title("what is left of the loss")


def draw_probing(found: SparseProbing, row: int, title: str | None) -> Figure:
    """Mean accuracies over tasks: features against activations, each beside its null controls."""
    series = [
        (name, values[row].mean(0).tolist(), colour)
        for name, values, colour in (
            ("model", found.accuracy, PALETTE[0]),
            ("null: random twin", found.random_model, "#6f7a83"),
            ("null: shuffled labels", found.shuffled, "#a9b4bd"),
        )
        if not bool(values[row].isnan().any())
    ]
    names = [
        probe.replace("sae", "features", 1).replace("llm", "activations", 1).replace("_", " ")
        for probe in found.probes
    ]
    names = [name if "top" in name else f"all {name}" for name in names]
    with sheet(5.5, 1.6 + 0.32 * len(names)) as figure:
        axes = figure.subplots()
        axes.tick_params(labelsize=8)
        for k, (name, values, colour) in enumerate(series):
            places = [i + (k - (len(series) - 1) / 2) * 0.26 for i in range(len(names))]
            axes.barh(places, values, height=0.24, label=name, color=colour)
        axes.axvline(0.5, color="#222222", linewidth=1, linestyle="--", label="chance")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(f"test accuracy, mean over {len(found.tasks)} tasks")
        axes.set_title(wrapped(title or f"sparse probing of {found.rows[row]}", 4.6))
        figure.legend(frameon=False, fontsize=7.5, ncols=4, loc="outside lower center")
    return figure
