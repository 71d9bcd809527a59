"""The run that a sweep edits, in parts of as many prompts as may run at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.base import Base, run_base
from interp.engine.entry import localise, to_see
from interp.engine.kernels import replay_kernels
from interp.engine.readout import Readout
from interp.engine.spots import Cell, Spot, Values
from interp.engine.wavefront import Wavefront
from interp.engine.work import Work, tokens_that_fit
from interp.runs.edits import RowEdit
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["Slab", "run_slabs"]


@dataclass(frozen=True, eq=False)
class Slab:
    """Some of the prompts.

    Attributes:
        base: their unedited run.
        rows: which of ``total`` prompts they are.
    """

    base: Base
    rows: slice
    total: int

    @torch.no_grad()
    def enter(self, cells: Sequence[Cell], values: Values, work: Work) -> tuple[list[Cell], Values]:
        """The cells for these prompts, with edits inside a block turned into residuals."""
        own, ours = self.cut(cells, values)
        with replay_kernels(self.base.anatomy):
            return localise(self.base, own, ours, work)

    def cut(self, cells: Sequence[Cell], values: Values) -> tuple[list[Cell], Values]:
        """The cells and their values for these prompts."""
        whole: dict[Spot, Spot] = {}

        made: dict[Spot, Spot] = {}

        def part(spot: Spot) -> Spot:
            if spot not in made:
                made[spot] = spot.rows(self.rows)
                whole[made[spot]] = spot
            return made[spot]

        def ours(spot: Spot) -> Tensor:
            value = values(whole[spot])
            counts = value.dim() == spot.dims and value.shape[0] == self.total
            return value[self.rows] if counts else value

        return [tuple(part(spot) for spot in cell) for cell in cells], ours

    @torch.no_grad()
    def logits(
        self, cells: Sequence[Cell], values: Values, readout: Readout, start: int, work: Work
    ) -> Float[Tensor, "cell prompt *pos vocab"]:
        """What is read of the cells."""
        front = Wavefront(self.base, start, values, readout.rows(self.rows), work)
        with replay_kernels(self.base.anatomy):
            return front.run(cells)


def run_slabs(
    anatomy: Anatomy,
    tokens: TokenBatch,
    cells: Sequence[Cell],
    *,
    whole: bool,
    batch: int | Literal["auto"],
    embed: RowEdit | None = None,
) -> list[Slab]:
    """Run the prompts once, keeping what the cells need.

    Args:
        whole: keep the logits of every position; else those of each prompt's last token.
        batch: how many prompts may run at once; fewer do if memory runs out.
        embed: an edit of the embeddings that stands in every run.
    """
    n, width, see = len(tokens), tokens.ids.shape[1], to_see(anatomy, cells)
    step = tokens_that_fit(anatomy, width) // width if batch == "auto" else batch
    step = max(1, min(n, step))

    def slab(rows: slice) -> Slab:
        own = None if embed is None else embed.rows(rows.start, rows.stop, n)
        base = run_base(anatomy, tokens.rows(rows), logits=whole, see=see, embed=own)
        return Slab(base, rows, n)

    while True:
        try:
            return [slab(slice(low, min(low + step, n))) for low in range(0, n, step)]
        except torch.OutOfMemoryError:
            if step == 1:
                raise
        step //= 2
