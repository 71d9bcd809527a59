"""The overview as one page: who writes the answer, when, which words matter, where heads look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp.figures.labels import put_x, put_y, short
from interp.figures.paint import largest, paint
from interp.figures.style import ATTENTION, DIVERGING, PALETTE, sheet, wrapped
from interp.overview.family import Family

if TYPE_CHECKING:
    from interp.overview.result import ScanResult

__all__ = ["overview"]

_WIDTH, _MOST = 7.2, 14  # inches; bars of components
_TITLE = 240  # characters of the prompt's end in the headline
_FONT = 7.0
_GREY, _INK = "#9a9a9a", "#222222"
_RED, _BLUE = "#b2182b", "#2166ac"


def overview(scan: ScanResult) -> Figure:
    """Draw a scan. A dot marks what survives its control; grey is what random contexts give."""
    n_layers, _ = _shape(scan["direct, heads"])
    middle = max(1.2, 0.16 * n_layers + 0.5)
    looks = max(0.8, 0.16 * len(scan.attention.heads) + 0.5)
    text = scan.text if len(scan.text) <= _TITLE else f"…{scan.text[1 - _TITLE :]}"
    title = wrapped(f"{text} → {scan.answer.strip()}", _WIDTH - 1.4)
    with sheet(_WIDTH, 2.3 + middle + 1.5 + looks + 0.9) as figure:
        rows: Any = figure.subfigures(4, 1, height_ratios=[2.3, middle, 1.6, looks + 0.4])
        left, right = rows[0].subplots(1, 2)
        _components(left, scan["direct"], scan.answer)
        _lens(right, scan["lens"], scan.answer)
        left, right = rows[1].subplots(1, 2)
        _heads(left, scan["direct, heads"], "direct, by head (logits)", rows[1])
        _heads(right, scan["ablation"], "at its mean, at the end: log P (nats)", rows[1])
        _positions(rows[2].subplots(), scan["position"])
        _attention(rows[3].subplots(), scan, rows[3])
        figure.suptitle(title, fontsize=10, fontweight="bold")
        note = "dot or dark: survives its control; grey: mean and deviation on random contexts"
        figure.supxlabel(note, fontsize=7, color="#555555")
    return figure


def _components(axes: Axes, family: Family, answer: str) -> None:
    order = np.argsort(-family.t().abs().numpy(), kind="stable")[:_MOST]
    order = np.sort(order)
    places, kept = np.arange(len(order)), family.survives().numpy()[order]
    values, mean = family.score.numpy()[order], family.mean.numpy()[order]
    axes.barh(places, values, height=0.6, alpha=0.85,
              color=[_colour(v, keep) for v, keep in zip(values, kept, strict=True)])  # fmt: skip
    axes.errorbar(mean, places, xerr=family.contexts.std(-1).numpy()[order], fmt="|", color=_GREY,
                  elinewidth=1.4, markersize=6)  # fmt: skip
    names = [family.cells[i].replace("_out", "") for i in order]
    axes.set_yticks(places, names, fontsize=_FONT)
    axes.invert_yaxis()
    axes.axvline(0, color=_INK, linewidth=0.6)
    _titled(axes, f"what each adds to {answer.strip()!r}", "logits")


def _lens(axes: Axes, family: Family, answer: str) -> None:
    steps, mean = np.arange(len(family.cells)), family.mean.numpy()
    std = family.contexts.std(-1).numpy()
    axes.fill_between(steps, mean - std, mean + std, color=_GREY, alpha=0.3, linewidth=0)
    axes.plot(steps, mean, color=_GREY, linewidth=1)
    axes.plot(steps, family.score.numpy(), color=PALETTE[0], linewidth=1.4)
    kept = family.survives().numpy()
    axes.plot(steps[kept], family.score.numpy()[kept], "o", color=_INK, markersize=3.5)
    put_x(axes, [c.removeprefix("before ") for c in family.cells], 2.4 / len(steps), _FONT)
    _titled(axes, f"log P({answer.strip()}) read before each block", "")
    axes.set_ylabel("nats", fontsize=_FONT)


def _heads(axes: Axes, family: Family, title: str, figure: Any) -> None:
    """Layer × head; what belongs to no head (an MLP) in a column of its own."""
    n_layers, n_heads = _shape(family)
    other = any(".H" not in cell for cell in family.cells)
    values = np.full((n_layers, n_heads + other), np.nan)
    kept = np.zeros_like(values, dtype=bool)
    survives = family.survives().tolist()
    for cell, score, survived in zip(family.cells, family.score.tolist(), survives, strict=True):
        layer, head = _place(cell, n_heads)
        values[layer, head], kept[layer, head] = score, survived
    top = largest(values)
    image = paint(axes, values, low=-top, high=top, colours=DIVERGING)
    for layer, head in np.argwhere(kept):
        dark = abs(values[layer, head]) > 0.6 * top
        axes.plot(head, layer, "o", color="white" if dark else _INK, markersize=2.5)
    cell_width = 2.3 / values.shape[1]
    put_x(axes, [*map(str, range(n_heads)), *([""] if other else [])], cell_width, _FONT)
    if other:  # its label stands even where there is room for some heads' only
        axes.annotate("MLP", (n_heads, -0.5), (0, -5), textcoords="offset points",
                      fontsize=_FONT, ha="center", va="top", rotation=90)  # fmt: skip
    put_y(axes, [str(i) for i in range(n_layers)], 0.16, _FONT)
    _titled(axes, title, "head")
    axes.set_ylabel("layer", fontsize=_FONT)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.ax.tick_params(labelsize=6)


def _positions(axes: Axes, family: Family) -> None:
    places, values = np.arange(len(family.cells)), family.score.numpy()
    kept = family.survives().tolist()
    colours = [_colour(v, keep) for v, keep in zip(values, kept, strict=True)]
    axes.bar(places, values, width=0.6, alpha=0.85, color=colours)
    axes.errorbar(places, family.mean.numpy(), yerr=family.contexts.std(-1).numpy(), fmt="_",
                  color=_GREY, elinewidth=1.4, markersize=6)  # fmt: skip
    axes.axhline(0, color=_INK, linewidth=0.6)
    axes.set_xlim(-0.5, len(places) - 0.5)
    put_x(axes, family.cells, 5.8 / len(places), _FONT)
    _titled(axes, "noise on one token: change of log P of the top token", "")
    axes.set_ylabel("nats", fontsize=_FONT)


def _attention(axes: Axes, scan: ScanResult, figure: Any) -> None:
    shares = scan.attention.patterns[:, -1].numpy()
    image = paint(axes, shares, low=0.0, high=1.0, colours=ATTENTION, upward=False)
    kept = dict(zip(scan["attention"].cells, scan["attention"].survives().tolist(), strict=True))
    for row, head in enumerate(scan.attention.heads):
        for column, token in enumerate(scan.tokens):
            if kept[f"{head} → {token}"]:
                dark = shares[row, column] > 0.6
                axes.plot(column, row, "o", color="white" if dark else _INK, markersize=2.5)
    put_y(axes, scan.attention.heads, 0.16, _FONT)
    put_x(axes, scan.tokens, 5.6 / len(scan.tokens), _FONT)
    _titled(axes, "attention from the last token, of the heads that stand out", "")
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.ax.tick_params(labelsize=6)


def _titled(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(short(title, 70), fontsize=8, fontweight="bold")
    axes.set_xlabel(unit, fontsize=_FONT)
    axes.tick_params(axis="both", labelsize=_FONT)


def _colour(value: Any, survives: Any) -> str:
    if not survives:
        return "#d9d0d0" if value >= 0 else "#cdd5df"
    return _RED if value >= 0 else _BLUE


def _shape(family: Family) -> tuple[int, int]:
    heads = [cell.split(".")[:2] for cell in family.cells if ".H" in cell]
    return max(int(a[1:]) for a, _ in heads) + 1, max(int(b[1:]) for _, b in heads) + 1


def _place(cell: str, n_heads: int) -> tuple[int, int]:
    layer, part = cell.split(".")[:2]
    return int(layer[1:]), int(part[1:]) if part.startswith("H") else n_heads
