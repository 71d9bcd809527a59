"""Figures of a direct attribution: bars by component, a layer × head map, curves over layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from interp.errors import ResultError
from interp.figures.heatmap import heatmap
from interp.figures.labels import put_x, put_y
from interp.figures.lines import lines
from interp.figures.paint import largest, paint
from interp.figures.ranked import ranked
from interp.figures.style import DIVERGING, WIDTH, sheet, wrapped
from interp.intervals import bootstrap

if TYPE_CHECKING:
    from interp.direct.result import LogitAttribution

__all__ = ["draw", "draw_accumulated"]

_MOST = 30  # bars in one figure
_FONT = 8.0


def draw(result: LogitAttribution, title: str) -> Figure:
    """The figure that fits a result's axes."""
    unit = f"direct attribution ({result.unit})"
    others = result.axes[1:]
    if len(others) > 1:
        raise ResultError(
            f"{' and '.join(a.name for a in others)} do not fit in one figure beside the parts: pick "
            f"one with result.select({others[0].name}={others[0].labels[0]!r})."
        )
    if others:
        return heatmap(
            result.values, rows=[_short(name) for name in result.names], columns=others[0].labels,
            title=title, unit=unit, row_name="part", column_name=others[0].name,
            missing="no prompt has a token here",
        )  # fmt: skip
    return _head_map(result, title) if result.by == "head" else _bars(result, title, unit)


def _bars(result: LogitAttribution, title: str, unit: str) -> Figure:
    """Parts in the order in which they are written; where they are many, the strongest first."""
    kept = torch.arange(len(result.names))
    if len(kept) > _MOST:
        kept = result.values.abs().sort(descending=True, stable=True).indices[:_MOST]
        title = f"{title}: strongest {_MOST} of {len(result.names)} parts"
    interval = bootstrap(result.per_prompt[kept])
    return ranked(
        [_short(result.names[i]) for i in kept.tolist()], interval.mean,
        low=interval.low, high=interval.high, title=title, unit=unit,
    )  # fmt: skip


def _head_map(result: LogitAttribution, title: str) -> Figure:
    """Heads on the left, what each layer's attention and MLP add on the right, on one scale."""
    heads = result.heads().mean(-1).float().cpu().numpy()
    beside = torch.stack([result.layers(half).mean(-1) for half in ("attn", "mlp")], -1)
    halves, (n_layers, n_heads) = beside.float().cpu().numpy(), heads.shape
    outside = [i for i, name in enumerate(result.names) if not name.startswith("L")]
    written = "    ".join(f"{result.names[i]} {_number(float(result.values[i]))}" for i in outside)
    top = largest(np.concatenate([heads, halves], 1))
    cell = min(0.44, (WIDTH - 2.1) / (n_heads + 2))
    tall = min(0.30, 5.5 / n_layers)
    width = max(4.2, 2.1 + cell * (n_heads + 2.6))
    headline = wrapped(title, width - 0.6)
    height = 1.25 + 0.17 * headline.count("\n") + max(0.6, tall * n_layers)
    with sheet(width, height) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[n_heads, 2])
        for axes, array in ((left, heads), (right, halves)):
            image = paint(axes, array, low=-top, high=top, colours=DIVERGING)
            _numbers(axes, array, top, fits=cell >= 0.3 and tall >= 0.15)
        put_x(left, [str(h) for h in range(n_heads)], cell, _FONT)
        right.set_xticks(
            range(2), ["attn", "MLP"], fontsize=_FONT, rotation=0 if cell > 0.35 else 90
        )
        put_y(left, [str(n) for n in range(n_layers)], tall, _FONT)
        right.tick_params(axis="y", labelleft=False)
        left.set_xlabel("head")
        left.set_ylabel("layer")
        right.set_xlabel("all of it")
        figure.suptitle(headline, fontsize=10, fontweight="bold")
        figure.supxlabel(f"beside the blocks: {written}", fontsize=7.5)
        bar = figure.colorbar(image, ax=[left, right], shrink=0.95, pad=0.02)
        bar.set_label(result.unit, fontsize=_FONT)
        bar.ax.tick_params(labelsize=7)
    return figure


def _numbers(axes: object, array: np.ndarray, top: float, *, fits: bool) -> None:
    for (row, column), value in np.ndenumerate(array) if fits else ():
        text = f"{value:.2f}" if top < 9.95 else f"{value:.1f}"
        axes.text(column, row, text if float(text) else text.removeprefix("-"), ha="center",  # type: ignore[attr-defined]
                  va="center", fontsize=6.5, color="white" if abs(value) > 0.62 * top else "#222222")  # fmt: skip


def draw_accumulated(result: LogitAttribution, title: str) -> Figure:
    """The measure before each block, a curve for each label of a further axis (at most six)."""
    steps, others = result.accumulated(), result.axes[1:]
    if len(others) > 1 or (others and len(others[0]) > 6):
        raise ResultError(
            "curves show one axis of at most six labels beside the layers: pick with result.select."
        )
    curves = {result.label: steps} if not others else {
        label: steps[:, i] for i, label in enumerate(others[0].labels)
    }  # fmt: skip
    found = {label: bootstrap(curve) for label, curve in curves.items()}
    return lines(
        result.steps,
        {label: interval.mean.tolist() for label, interval in found.items()},
        title=title, x_name="before block", y_name=f"{result.label} ({result.unit})",
        bands={label: (i.low.tolist(), i.high.tolist()) for label, i in found.items()},
    )  # fmt: skip


def _number(value: float) -> str:
    text = f"{value:+.2f}"
    return text if float(text) else "0.00"


def _short(name: str) -> str:
    """A part's name without what goes without saying."""
    return name.removesuffix(".result").replace(".mlp_post.", ".").replace("_out", "")
