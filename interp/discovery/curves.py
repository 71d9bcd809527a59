"""Figures of searches: the metric along ACDC's removals, and the training of gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from interp.figures.style import PALETTE, WIDTH, canvas, sheet, wrapped

if TYPE_CHECKING:
    from interp.discovery.acdc_record import AcdcRecord
    from interp.discovery.mask_record import MaskRecord

__all__ = ["removals", "training"]


def removals(record: AcdcRecord, *, title: str) -> Figure:
    """The metric of the circuit after each decision; a mark for each edge that stays."""
    done = int(record.done.sum())
    full, empty = float(record.full.mean()), float(record.empty.mean())
    along = np.concatenate([[full], record.along[:done].numpy()])
    stays = np.flatnonzero(record.kept[:done].numpy()) + 1
    with canvas(WIDTH, 2.9) as (figure, axes):
        axes.step(range(done + 1), along, where="post", color=PALETTE[0], linewidth=1.2)
        axes.plot(stays, along[stays], "o", markersize=3.5, color=PALETTE[1],
                  label=f"{len(stays)} of {len(record.edges)} edges stay")  # fmt: skip
        for value, name, colour in (
            (full, "every edge", PALETTE[5]),
            (empty, "no edge", PALETTE[4]),
        ):
            axes.axhline(
                value, color=colour, linewidth=1, linestyle="--", label=f"{name}: {value:.3g}"
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(0, len(record.edges))
        axes.set_xlabel("edges tried, from the logits backwards")
        unit = "" if record.unit in ("", record.metric) else f" ({record.unit})"
        axes.set_ylabel(f"{record.metric}{unit}")
        axes.set_title(wrapped(title, WIDTH))
        axes.legend(frameon=False, loc="center left")
    return figure


def training(record: MaskRecord, *, title: str) -> Figure:
    """What was lost of the full model, and how many edges were open, along the steps."""
    steps = range(1, record.step + 1)
    with sheet(WIDTH, 2.6) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(steps, record["distance"].tolist(), color=PALETTE[0], linewidth=1.0)
        left.set_title("distance of each draw (full 0, empty 1)", fontsize=8.5, fontweight="normal")
        right.plot(
            steps, record["open"].tolist(), color=PALETTE[0], linewidth=1.2, label="expected"
        )
        if not record["target"].isnan().all():
            right.plot(steps, record["target"].tolist(), color=PALETTE[1], linewidth=1.0,
                       linestyle="--", label="asked for")  # fmt: skip
            right.legend(frameon=False)
        right.set_title(f"share of {record.gated} open", fontsize=8.5, fontweight="normal")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.tick_params(labelsize=7.5)
        figure.suptitle(wrapped(title, WIDTH - 0.3), fontsize=10, fontweight="bold")
    return figure
