"""Which row of a store belongs to a token of a text?

The records say which documents each shard touches, so a look-up opens only the shards that may have
the token. Within a shard, document and position make one number, and the numbers are searched by
halving; where a shard's rows do not come in that order, they are sorted once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from interp.store.maps import Maps

__all__ = ["Lookup"]

_LAST = 2**31 - 1  # documents and positions up to here make one number of 64 bits
_MOST_KEPT = 64  # shards whose numbers stay in memory, 16 bytes for each row


@dataclass(frozen=True, eq=False, repr=False)
class Lookup:
    """Rows of a store by document and position."""

    maps: Maps
    _kept: OrderedDict[int, tuple[ndarray, ndarray]] = field(
        init=False, default_factory=OrderedDict
    )

    def __reduce__(self) -> tuple[type[Lookup], tuple[Maps]]:
        return Lookup, (self.maps,)

    def rows(
        self, document: Int[ndarray, " n"], position: Int[ndarray, " n"]
    ) -> Int[ndarray, " n"]:
        """The row of each token, -1 where the store has none. Of several the first."""
        known = (position >= -1) & (position <= _LAST) & (document <= _LAST)  # others would wrap
        document, position = np.where(known, document, -1), np.where(known, position, 0)
        wanted = _number(document, position)
        order = np.argsort(wanted, kind="stable")
        documents, wanted = document[order], wanted[order]
        found = np.full(len(order), -1, dtype=np.int64)
        for place, mine in self._shards(documents):
            numbers, at = self._numbers(place)
            where = np.searchsorted(numbers, wanted[mine])
            where[where == len(numbers)] = 0  # equal to none of those
            hit = (numbers[where] == wanted[mine]) & (found[mine] < 0)
            found[mine] = np.where(hit, at[where] + self.maps.starts[place], found[mine])
        out = np.empty_like(found)
        out[order] = found
        return out

    def positions(self, document: int, low: int = 0, high: int = 2**31 - 1) -> Int[ndarray, " n"]:
        """The positions of one document, from ``low`` to ``high``, that the store has; ascending."""
        found = [np.empty(0, dtype=np.int64)]
        for place, _ in self._shards(np.array([document])):
            numbers, _ = self._numbers(place)
            ends = _number(np.array([document, document]), np.array([low, high + 1]))
            first, last = np.searchsorted(numbers, ends)
            found.append((numbers[first:last] & 0xFFFFFFFF) - 1)
        return np.unique(np.concatenate(found))

    def _shards(self, documents: Int[ndarray, " n"]) -> list[tuple[int, slice]]:
        """Shards that may hold rows of some documents (ascending), and of which of them."""
        first, last, filled = self._reach
        low = np.searchsorted(documents, first, "left")
        high = np.searchsorted(documents, last, "right")
        return [
            (int(place), slice(low[place], high[place]))
            for place in np.flatnonzero((high > low) & filled)
        ]

    @cached_property
    def _reach(
        self,
    ) -> tuple[Int[ndarray, " shard"], Int[ndarray, " shard"], Bool[ndarray, " shard"]]:
        """Each shard's least and greatest document, and whether it has rows at all."""
        records = self.maps.records
        first = np.array([record.first_document for record in records], dtype=np.int64)
        last = np.array([record.last_document for record in records], dtype=np.int64)
        return first, last, np.array([record.rows > 0 for record in records], dtype=bool)

    def _numbers(self, place: int) -> tuple[Int[ndarray, " row"], Int[ndarray, " row"]]:
        """A shard's (document, position) numbers, ascending, and the row of each in the shard."""
        kept = self._kept.pop(place, None)
        if kept is None:
            shard = self.maps.shard(place)
            numbers = _number(shard["document"].numpy(), shard["position"].numpy())
            order = np.argsort(numbers, kind="stable")
            kept = numbers[order], order
        self._kept[place] = kept
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return kept


def _number(document: Int[ndarray, " n"], position: Int[ndarray, " n"] | int) -> Int[ndarray, " n"]:
    """Document and position (from -1 up) as one number that orders them."""
    return (document.astype(np.int64) << 32) + np.asarray(position, dtype=np.int64) + 1
