"""A bounded number of rows in memory, out of which random ones are drawn.

Rows come in the corpus's order, many from one document in a row. Drawn without replacement from a full
reservoir of n rows, a row waits n / size batches on average and keeps company with rows of all documents
that have come in since: with a reservoir of many documents, batches are mixed across them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from interp.store.rows import Rows

__all__ = ["Reservoir"]


class Reservoir:
    """Room for ``capacity`` rows.

    Attributes:
        n: rows that it holds.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], capacity: int, dtype: torch.dtype, *,
        device: torch.device,
    ) -> None:  # fmt: skip
        def room(*shape: int, kind: torch.dtype) -> Tensor:
            return torch.empty(capacity, *shape, dtype=kind, device=device)

        self._rows = Rows(
            {site: room(*shape, kind=dtype) for site, shape in shapes.items()},
            tokens=room(kind=torch.int32),
            document=room(kind=torch.int64),
            position=room(kind=torch.int32),
        )
        self.capacity, self.n = capacity, 0

    @property
    def free(self) -> int:
        return self.capacity - self.n

    @property
    def held(self) -> Rows:
        """What it holds, in its own order; views."""
        return self._rows.take(slice(0, self.n))

    def add(self, rows: Rows) -> None:
        """Take some rows in; there must be room for them."""
        for room, new in _columns(self._rows, rows):
            room[self.n : self.n + len(new)].copy_(new)
        self.n += len(rows)

    def draw(self, size: int, generator: torch.Generator) -> Rows:
        """Take ``size`` random rows out."""
        chosen = torch.randperm(self.n, generator=generator)[:size]
        out = self._rows.take(chosen.to(self._rows.tokens.device))
        left = self.n - size
        gaps = chosen[chosen < left]
        movers = torch.ones(size, dtype=torch.bool)
        movers[chosen[chosen >= left] - left] = False
        self._move(movers.nonzero().flatten() + left, gaps)
        self.n = left
        return out

    def first(self, size: int) -> Rows:
        """Take the ``size`` oldest rows out, in order, if nothing was ever drawn."""
        out = self._rows.take(torch.arange(size, device=self._rows.tokens.device))
        rest = torch.arange(size, self.n)
        self._move(rest, rest - size)
        self.n -= size
        return out

    def _move(self, where: Tensor, to: Tensor) -> None:
        device = self._rows.tokens.device
        where, to = where.to(device), to.to(device)
        for room, _ in _columns(self._rows, self._rows):
            room[to] = room[where]


def _columns(one: Rows, two: Rows) -> list[tuple[Tensor, Tensor]]:
    """The same columns of both: activations, tokens, documents, positions."""
    pairs = [(one.tensors[site], two.tensors[site]) for site in one.tensors]
    return pairs + [(getattr(one, c), getattr(two, c)) for c in ("tokens", "document", "position")]
