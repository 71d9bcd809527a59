"""The best rows of each unit, kept exactly as they stream by, with the tokens around them.

The order is by score, and among equal scores by occurrence, so what is kept depends on the rows
alone and not on how they were cut. At any time it is what one sort of all rows so far would give.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Block", "Kept"]

_LOW = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows with their units' numbers; ``first`` is the first row's number in the stream."""

    first: int
    values: Float[Tensor, "row unit"]
    tokens: Int[Tensor, " row"]
    document: Int[Tensor, " row"]
    position: Int[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.tokens)

    def behind(self, start: int) -> Block:
        """A copy of the rows from ``start`` on, which does not keep the others in memory."""
        tensors = (self.values, self.tokens, self.document, self.position)
        return Block(self.first + start, *(x[start:].clone() for x in tensors))

    def then(self, other: Block) -> Block:
        """These rows and the ones behind them."""
        names = [f.name for f in fields(self)[1:]]
        both = (torch.cat([getattr(self, name), getattr(other, name)]) for name in names)
        return Block(self.first, *both)


@dataclass(frozen=True, eq=False)
class Kept:
    """The best ``k`` rows of each unit, best first; places not filled have the score -inf.

    ``tokens`` and ``values`` are those of a window around the row: -1 and NaN where another document,
    or nothing, stands.
    """

    score: Float[Tensor, "unit k"]
    document: Int[Tensor, "unit k"]
    position: Int[Tensor, "unit k"]
    tokens: Int[Tensor, "unit k window"]
    values: Float[Tensor, "unit k window"]

    @classmethod
    def empty(cls, units: int, k: int, window: int, device: torch.device) -> Kept:
        def full(value: int | float, dtype: torch.dtype, *more: int) -> Tensor:
            return torch.full((units, k, *more), value, dtype=dtype, device=device)

        return cls(
            full(-torch.inf, torch.float32), full(-1, torch.int64), full(-1, torch.int64),
            full(-1, torch.int32, window), full(torch.nan, torch.float32, window),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def with_rows(
        self,
        block: Block,
        scores: Float[Tensor, "row unit"],
        start: int,
        *,
        before: int,
        per_document: bool,
    ) -> Kept:
        """What is kept once some rows have been seen.

        Args:
            block: the rows, with those around them.
            scores: of the rows from ``start`` on, each unit's; -inf: not wanted.
            before: how many tokens of the window stand before the row.
            per_document: keep at most one row of each document for a unit: its best.
        """
        active = (scores.max(0).values > self.score[:, -1]).nonzero().flatten()
        if not len(active):
            return self
        scores = scores[:, active] + 0.0  # a zero has no sign
        k = self.score.shape[1]
        own = block.document[start : start + len(scores)]
        rows = _best(scores, own if per_document else None, k).T
        found = self._cut(block, scores.T.gather(1, rows), rows + start, before, active)
        return self._with(found, active, per_document=per_document)

    def with_entries(
        self,
        block: Block,
        row: Int[Tensor, " entry"],
        unit: Int[Tensor, " entry"],
        scores: Float[Tensor, " entry"],
        *,
        before: int,
        per_document: bool,
    ) -> Kept:
        """What :meth:`with_rows` keeps, where few units of a row are wanted (sparse features).

        Args:
            block: the rows, with those around them.
            row, unit: of each entry its row in the block, and its unit; no pair twice.
            scores: finite.
        """
        better = scores > self.score[unit, -1]
        row, unit, scores = row[better], unit[better], scores[better]
        if not len(row):
            return self
        order = _ranked(row, unit, scores, block.document if per_document else None)
        row, scores = row[order], scores[order]
        active, place, size = unit[order].unique_consecutive(
            return_inverse=True, return_counts=True
        )
        k = self.score.shape[1]
        rank = torch.arange(len(row), device=row.device) - (size.cumsum(0) - size)[place]
        first = rank < k
        where = (place[first], rank[first])
        best = self.score.new_full((len(active), k), -torch.inf).index_put(where, scores[first])
        here = row.new_zeros(len(active), k).index_put(where, row[first])
        found = self._cut(block, best, here, before, active)
        return self._with(found, active, per_document=per_document)

    def _with(self, found: Kept, active: Tensor, *, per_document: bool) -> Kept:
        """These and the ones found in later rows, of some units."""
        old = Kept(*(getattr(self, f.name)[active] for f in fields(self)))
        merged = _merged(old, found, self.score.shape[1], per_document=per_document)
        if len(active) == len(self.score):
            return merged
        return Kept(*(getattr(self, f.name).index_copy(0, active, getattr(merged, f.name))
                      for f in fields(self)))  # fmt: skip

    def _cut(self, block: Block, scores: Tensor, here: Tensor, before: int, active: Tensor) -> Kept:
        """The chosen rows [unit, best] of a block with their windows."""
        around = torch.arange(self.tokens.shape[-1], device=here.device) - before
        places = here[..., None] + around
        inside = (places >= 0) & (places < len(block))
        places = places.clamp(0, len(block) - 1)
        order = (block.position[places] - block.position[here][..., None]).sign()
        same = inside & (block.document[places] == block.document[here][..., None])
        same &= order == around.sign()
        values = block.values[places, active[:, None, None]]
        return Kept(
            scores,
            block.document[here],
            block.position[here],
            block.tokens[places].int().masked_fill(~same, -1),
            values.masked_fill(~same, torch.nan),
        )


def _best(scores: Float[Tensor, "row unit"], document: Int[Tensor, " row"] | None, k: int
          ) -> Int[Tensor, "best unit"]:  # fmt: skip
    """The rows with the largest scores, at most one of each document; the first among equals.

    A score and its row make one integer, so no two are equal and any order of summing gives the same.
    """
    bits = scores.contiguous().view(torch.int32)
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # the order of the floats
    index = torch.arange(len(scores), device=scores.device)
    keys = (rising << 32) | (_LOW - index)[:, None]
    if document is not None:
        _, group = document.unique(return_inverse=True)
        best = keys.new_full((int(group.max()) + 1, keys.shape[1]), torch.iinfo(torch.int64).min)
        keys = best.scatter_reduce(0, group[:, None].expand_as(keys), keys, "amax")
    return _LOW - (keys.topk(min(k, len(keys)), dim=0).values & _LOW)


def _ranked(
    row: Int[Tensor, " entry"],
    unit: Int[Tensor, " entry"],
    scores: Float[Tensor, " entry"],
    document: Int[Tensor, " row"] | None,
) -> Int[Tensor, " best"]:
    """Entries by unit, in each the largest scores first, the first row among equals.

    With ``document``, only the first of each document in a unit.
    """
    order = row.argsort(stable=True)
    order = order[scores[order].argsort(descending=True, stable=True)]
    order = order[unit[order].argsort(stable=True)]
    if document is None:
        return order
    _, group = document[row].unique(return_inverse=True)
    pair = unit * (group.max() + 1) + group
    by_pair = order[pair[order].argsort(stable=True)]  # best first in each pair still
    first = torch.ones_like(by_pair, dtype=torch.bool)
    first[1:] = pair[by_pair][1:] != pair[by_pair][:-1]
    won = torch.zeros_like(first).index_put((by_pair[first],), first.new_ones(()))
    return order[won[order]]


def _merged(old: Kept, new: Kept, k: int, *, per_document: bool) -> Kept:
    """The best of both; those of ``old`` stood earlier."""
    first, second = old.score, new.score
    if per_document:
        same = old.document[:, :, None] == new.document[:, None, :]
        better = second[:, None, :] > first[:, :, None]
        first = first.masked_fill((same & better).any(2), -torch.inf)
        second = second.masked_fill((same & ~better).any(1), -torch.inf)
    order = torch.cat([first, second], 1).sort(dim=1, descending=True, stable=True)
    chosen = order.indices[:, :k]

    def pick(name: str) -> Tensor:
        both = torch.cat([getattr(old, name), getattr(new, name)], 1)
        if both.ndim == 2:
            return both.gather(1, chosen)
        return both.gather(1, chosen[..., None].expand(-1, -1, both.shape[-1]))

    score = order.values[:, :k]
    empty = score == -torch.inf
    return Kept(
        score,
        pick("document").masked_fill(empty, -1),
        pick("position").masked_fill(empty, -1),
        pick("tokens").masked_fill(empty[..., None], -1),
        pick("values").masked_fill(empty[..., None], torch.nan),
    )
