"""Running the cells of a sweep: by the exact engine, or one forward pass each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.engine.forecast import forecast
from interp.engine.plain import run_plainly
from interp.engine.probe import why_not
from interp.engine.readout import Readout
from interp.engine.slabs import Slab, run_slabs
from interp.engine.spots import Cell, Values
from interp.engine.sweep import Sweep
from interp.engine.unmoved import unmoved
from interp.engine.work import Work
from interp.errors import RunError, warn
from interp.models.model import Model
from interp.progress import Bar
from interp.runs.edits import RowEdit
from interp.token_batch import TokenBatch

__all__ = ["Engine", "Outcome", "Way", "choose_way", "run_cells"]

Engine = Literal["auto", "replay", "plain"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The scores of a sweep's cells.

    Attributes:
        scores: NaN where a cell was not finished.
        done: which cells were.
        engine: ``"replay"``, or ``"plain"`` with the reason if it was not asked for.
        work: what was computed.
    """

    scores: Float[Tensor, "cell prompt"]
    done: Bool[Tensor, " cell"]
    engine: str
    work: dict[str, int]


@dataclass(frozen=True, eq=False)
class Way:
    """How a sweep is run.

    Attributes:
        name: ``"replay"``, or ``"plain"`` with the reason if it was not asked for.
        slabs: the run that is edited, done once; none on the plain path.
        seconds: what that took.
        embed: an edit of the embeddings that stands in every run.
    """

    model: Model
    tokens: TokenBatch
    cells: Sequence[Cell]
    name: str
    slabs: Sequence[Slab]
    batch: int | Literal["auto"]
    seconds: float = 0.0
    embed: RowEdit | None = None

    @property
    def logits(self) -> Float[Tensor, "prompt pos vocab"] | None:
        """The unedited run's logits, where the engine has run it."""
        return torch.cat([slab.base.logits for slab in self.slabs]) if self.slabs else None


def choose_way(
    model: Model,
    tokens: TokenBatch,
    cells: Sequence[Cell],
    sent: Sequence[Cell],
    *,
    whole: bool,
    engine: Engine,
    batch: int | Literal["auto"],
    embed: RowEdit | None = None,
) -> Way:
    """The exact engine if the model's blocks can be replayed, else the plain path.

    Args:
        sent: what values are computed from: the cells themselves, or the senders of paths.
        whole: whether the metric reads the logits of every position.
        embed: an edit of the embeddings that stands in every run.

    Raises:
        RunError: ``engine="replay"`` was asked for, and this model's blocks cannot be.
    """
    if engine not in ("auto", "replay", "plain"):
        raise RunError(f"engine={engine!r}; expected 'auto', 'replay' or 'plain'.")
    if engine == "plain":
        return Way(model, tokens, cells, "plain", [], batch, embed=embed)
    reason = why_not(model.anatomy)
    if reason is None:
        began = time.perf_counter()
        slabs = run_slabs(
            model.anatomy, tokens, [*cells, *sent], whole=whole, batch=batch, embed=embed
        )
        took = time.perf_counter() - began
        return Way(model, tokens, cells, "replay", slabs, batch, took, embed)
    if engine == "replay":
        raise RunError(f"engine='replay' cannot run {model.name}: {reason}. Use engine='auto'.")
    return Way(model, tokens, cells, f"plain: {reason}", [], batch, embed=embed)


def run_cells(
    way: Way,
    values: Values,
    readout: Readout,
    baseline: Float[Tensor, " prompt"],
    differs: Int[Tensor, " prompt"],
    *,
    before: Outcome | None = None,
    work: Work,
    progress: bool | None,
    verb: str = "patching",
) -> Outcome:
    """Run every cell that ``before`` has not finished. Ctrl-C returns those that are finished."""
    cells, anatomy, width = way.cells, way.model.anatomy, way.tokens.ids.shape[1]
    scores = torch.full((len(cells), len(way.tokens)), torch.nan, dtype=baseline.dtype)
    done = torch.zeros(len(cells), dtype=torch.bool)
    if before is not None:
        scores, done = before.scores.clone(), before.done.clone()
        work.block_positions += before.work["block_positions"]
        work.skipped += before.work["skipped"]
    if way.name.startswith("plain: "):  # asked for by name, it runs every cell
        idle = unmoved(anatomy, way.tokens, cells, values, batch=way.batch, embed=way.embed) & ~done
        scores[idle], done = baseline.to(scores), done | idle
        work.skipped += int(idle.sum())
    todo = (~done).nonzero().flatten().tolist()
    wanted = [cells[i] for i in todo]
    one_pass = anatomy.n_layers * len(way.tokens) * width
    finished: Iterator[tuple[list[int], Tensor]]
    what = f"{verb}, one forward pass for each cell"
    if way.slabs:
        sweep = Sweep(way.slabs, values, readout, baseline, differs)
        what = f"{verb}, {forecast(sweep, wanted, work, base_seconds=way.seconds)}"
        finished = sweep.run(wanted, work)
    else:
        finished = run_plainly(
            anatomy, way.tokens, wanted, values, readout, batch=way.batch, embed=way.embed
        )
    try:
        with Bar(total=len(cells), what=what, show=progress) as bar:
            bar.advance(len(cells) - len(todo))
            for numbers, some in finished:
                rows = torch.tensor([todo[i] for i in numbers])
                scores[rows] = some.to(scores.device, scores.dtype)
                done[rows] = True
                work.block_positions += 0 if way.slabs else len(numbers) * one_pass
                bar.advance(len(numbers))
    except KeyboardInterrupt:
        warn(
            f"interrupted: {int(done.sum())} of {len(cells)} cells are finished, the others are NaN. "
            "Pass resume= this result to go on.",
        )
    counts = {
        "cells": len(cells),
        "skipped": work.skipped,
        "block_positions": work.block_positions,
        "plain_block_positions": len(cells) * one_pass,
    }
    return Outcome(scores, done, way.name, counts)
