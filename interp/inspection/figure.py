"""A figure of one feature, for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interp.errors import ResultError
from interp.figures.style import PALETTE, sheet, wrapped
from interp.surveys.examples_view import printable
from interp.surveys.figure import draw_passages

if TYPE_CHECKING:
    from interp.inspection.feature import Feature, Pairs

__all__ = ["feature_figure"]

_RED, _BLUE = PALETTE[1], PALETTE[0]
_TOP, _EACH, _TOKENS = 6, 2, 7  # examples and tokens that fit


def feature_figure(feature: Feature, *, title: str | None = None) -> Figure:
    """Examples from the top and from each interval; under them the histogram and the logit effects."""
    of = feature.of
    passages, labels = (
        list(feature.top[:_TOP]),
        [f"{p.values[p.centre]:.2f}" for p in feature.top[:_TOP]],
    )
    if not passages:
        raise ResultError(
            f"{feature.name} is never active in {of.n_tokens:,} tokens: nothing to draw."
        )
    for low, high, drawn in feature.sampled:
        for i, passage in enumerate(drawn[:_EACH]):
            passages.append(passage)
            span = f"{low:.2g}–{high:.2g}:  " if i == 0 else ""
            labels.append(f"{span}{passage.values[passage.centre]:.2f}")
    lower = _lower(feature)
    tall, width = 0.5 + 0.185 * len(passages), 6.0
    with sheet(width, tall + 2.4) as figure:
        upper, under = figure.subfigures(2, 1, height_ratios=[tall, 2.4], squeeze=False)[:, 0]
        axes = upper.subplots()
        colours = draw_passages(axes, passages, labels)
        axes.axhline(len(feature.top[:_TOP]) - 0.5, color="#999999", linewidth=0.6)
        said = f"{feature.name}: active on {feature.frequency:.2%} of {of.n_tokens:,} tokens"
        axes.set_title(wrapped(title or said, width - 0.8))
        bar = upper.colorbar(colours, ax=axes, pad=0.01, shrink=0.9)
        bar.ax.set_ylim(0, None)  # activations are never negative
        bar.set_label("activation", fontsize=8)
        panels = under.subplots(1, len(lower), squeeze=False)[0]
        for panel, (name, pairs) in zip(panels, lower, strict=True):
            panel.tick_params(labelsize=8)
            if name == "histogram":
                _histogram(panel, feature)
            else:
                _bars(panel, pairs, name)
    return figure


def _lower(feature: Feature) -> list[tuple[str, Pairs]]:
    out: list[tuple[str, Pairs]] = [("histogram", ())]
    if feature.raises:
        half = (_TOKENS + 1) // 2
        ends = (*feature.raises[: half + 1], *reversed(feature.lowers[:half]))
        out.append(("logit effect per unit", ends))
    if feature.embedding:
        out.append(("de-embedding", feature.embedding[: _TOKENS + 2]))
    return out


def _histogram(axes: Axes, feature: Feature) -> None:
    of = feature.of
    heights = of.counts[feature.place].numpy()
    edges = np.linspace(0, feature.most, len(heights) + 1)
    axes.stairs(heights, edges, fill=True, color=_RED, alpha=0.35)
    axes.stairs(heights, edges, color=_RED, linewidth=1.0)
    for i in range(1, of.intervals):
        axes.axvline(i * feature.most / of.intervals, color="#999999", linewidth=0.6, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_formatter(lambda height, _: f"{height:g}")
    axes.minorticks_off()
    axes.set_xlabel("activation where positive", fontsize=8)
    axes.set_ylabel("tokens", fontsize=8)
    axes.set_title("how it is distributed", fontsize=9)


def _bars(axes: Axes, pairs: Pairs, name: str) -> None:
    values = [value for _, value in pairs]
    axes.barh(
        range(len(pairs)), values, color=[_RED if v > 0 else _BLUE for v in values], height=0.75
    )
    axes.set_yticks(range(len(pairs)), [_quoted(word) for word, _ in pairs], fontsize=7.5)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set_xlabel("logit" if name.startswith("logit") else "dot product", fontsize=8)
    axes.set_title(name, fontsize=9)


def _quoted(word: str) -> str:
    text = printable(word)
    text = text if len(text) <= 16 else text[:15] + "…"
    return f"“{text}”"
