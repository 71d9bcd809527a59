"""A whole sweep by replay: which cells matter, which go together, and how much fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.base import Base
from interp.engine.readout import Readout
from interp.engine.slabs import Slab
from interp.engine.spots import Cell, Values
from interp.engine.work import Work, in_parts
from interp.runs.memory import available

__all__ = ["Sweep"]

#: Calls of one block that a group of cells may take, at most.
_CALLS: Final = 32


@dataclass(frozen=True, eq=False)
class Sweep:
    """What is to be computed.

    Attributes:
        slabs: the run that the cells are edits of.
        values: what stands at each spot, for all prompts.
        readout: what is read at the end.
        baseline: the scores of the unedited run.
        differs: each prompt's first column at which a value can differ from the run's own; the
            width where it never can. Where attention is bidirectional, a difference anywhere in
            the tokens reaches every column, so the sweep takes it for the first one.
    """

    slabs: Sequence[Slab]
    values: Values
    readout: Readout
    baseline: Float[Tensor, " prompt"]
    differs: Int[Tensor, " prompt"]

    def run(
        self, cells: Sequence[Cell], work: Work
    ) -> Iterator[tuple[list[int], Float[Tensor, "cell prompt"]]]:
        """Yield the numbers of some cells with their scores, group by group."""
        dead = [i for i, cell in enumerate(cells) if self.cannot_matter(cell)]
        if dead:
            work.skipped += len(dead)
            yield dead, self.baseline.expand(len(dead), -1)
        starts = {i: self.start(cells[i]) for i in set(range(len(cells))) - set(dead)}
        order = sorted(starts, key=starts.__getitem__)
        if not order:
            return
        budget = Budget.of(self.slabs[0].base, self.readout)

        def enter(numbers: list[int]) -> list[tuple[list[Cell], Values]]:
            wanted = [cells[i] for i in numbers]
            return [slab.enter(wanted, self.values, work) for slab in self.slabs]

        for entering, entered in in_parts(order, budget.entering, work, enter):
            own = [starts[i] for i in entering]
            for start, group in groupby(range(len(own)), own.__getitem__):
                run = partial(self._scores, entered, start, work)
                size = budget.live(self._width - start, work)
                for part, scores in in_parts(list(group), size, work, run):
                    yield [entering[k] for k in part], scores

    @torch.no_grad()
    def _scores(
        self,
        entered: Sequence[tuple[list[Cell], Values]],
        start: int,
        work: Work,
        part: Sequence[int],
    ) -> Float[Tensor, "cell prompt"]:
        """The scores of some of the cells that have entered."""
        logits = [
            slab.logits([changed[k] for k in part], values, self.readout, start, work)
            for slab, (changed, values) in zip(self.slabs, entered, strict=True)
        ]
        return self.readout.of(torch.cat(logits, 1))

    @property
    def _width(self) -> int:
        return self.slabs[0].base.width

    @property
    def _causal(self) -> bool:
        return self.slabs[0].base.anatomy.causal

    @cached_property
    def _first(self) -> Int[Tensor, " prompt"]:
        """Each prompt's first column at which the two runs can hold other values."""
        if self._causal:
            return self.differs
        return torch.where(self.differs < self._width, 0, self.differs)

    def cannot_matter(self, cell: Cell) -> bool:
        """Whether every value put in is the run's own, or comes after all that is read."""
        for spot in cell:
            where = self._first if spot.columns is None else spot.columns.to(self._first)
            idle = where >= self._width if spot.columns is None else where < self._first
            if self.readout.answer is not None and self._causal:
                idle |= where > self.readout.answer.to(where)
            if not bool(idle.all()):
                return False
        return True

    def start(self, cell: Cell) -> int:
        """The first column that the cell changes, or that is read, if that comes first."""
        if not self._causal:  # what stands at one column reaches all of them
            return 0
        columns = [int((self.differs if s.columns is None else s.columns).min()) for s in cell]
        if self.readout.answer is not None:
            columns.append(int(self.readout.answer.min()))
        return min(columns)


@dataclass(frozen=True)
class Budget:
    """How many cells may be held at once.

    Attributes:
        entering: cells whose new residual streams are kept.
        per_position: bytes that a live cell takes for each column it carries.
        per_cell: bytes that its logits take.
        rows: prompts of a cell that pass the blocks together.
        free: bytes that may be planned with.
    """

    entering: int
    per_position: int
    per_cell: int
    rows: int
    free: int

    @classmethod
    def of(cls, base: Base, readout: Readout) -> Budget:
        resid, anatomy = base.resid[0], base.anatomy
        free, size = available(resid.device), resid.element_size()
        read = anatomy.d_vocab_out if readout.vocab is None else len(readout.vocab)
        logits = read * (base.width if readout.answer is None else 1)
        row = len(base) * anatomy.d_model * size
        per_cell = 4 * len(base) * logits * size
        return cls(max(1, free // (4 * row)), 4 * row, per_cell, len(base), free)

    def live(self, width: int, work: Work) -> int:
        """How many cells may carry ``width`` columns through the blocks together.

        No more than :data:`_CALLS` full calls of a block: what is finished is kept if the sweep
        is interrupted.
        """
        fits = self.free // (2 * (self.per_position * width + self.per_cell))
        return max(1, min(fits, _CALLS * work.tokens // (self.rows * width)))
