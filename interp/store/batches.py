"""Batches of a store's rows for training: shuffled, read ahead, and resumed at the exact place.

The order is a function of (seed, epoch, batch), see :mod:`interp.store.permutation`, and never a
list. So the position of a reader is one number, the batches handed out so far; a rank, or a worker
of a ``DataLoader``, computes its own share; and batch 10⁶ costs what batch 0 does.

Three orders:

``"rows"``    every row of the store once in each epoch, any row next to any other. The statistics
              of a batch are those of the whole store.
``"blocks"``  runs of neighbouring rows (``block`` of them) in shuffled order, so that a disk or
              network file system reads pieces and not single rows. Neighbours in a text share
              batches, so a batch tells less. Where blocks begin differs between epochs.
``None``      as harvested.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from numbers import Integral
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch.utils.data import IterableDataset, get_worker_info

from interp.errors import StoreError
from interp.store.maps import Maps
from interp.store.permutation import Permutation, keys
from interp.store.rows import Rows
from interp.store.shard import COLUMNS

__all__ = ["Batches", "Order", "Reading", "Shuffle"]

Shuffle = Literal["rows", "blocks"] | None

_BLOCK: Final = 128


@dataclass(frozen=True)
class Order:
    """Which rows each batch has.

    Attributes:
        n: rows of the store.
        size: rows of a batch; the last one of an epoch may have fewer.
        seed: behind the shuffle.
        shuffle: ``"rows"``, ``"blocks"`` or None.
        block: neighbouring rows that stay together under ``"blocks"``; else None.
        drop_last: leave out the last batch of an epoch if it is short.

    Raises:
        StoreError: an option is out of range, or there is not one batch.
    """

    n: int
    size: int
    seed: int
    shuffle: Shuffle
    block: int | None
    drop_last: bool

    @classmethod
    def of(
        cls,
        n: int,
        size: int,
        *,
        seed: int = 0,
        shuffle: Shuffle = "rows",
        block: int | None = None,
        drop_last: bool = False,
    ) -> Order:
        """An order with blocks of 128 rows, or of a quarter of a batch that is small."""
        _at_least_one("size", size)
        keys(seed, 0, 1)
        if block is None and shuffle == "blocks":
            block = min(_BLOCK, -(-int(size) // 4))
        return cls(n, int(size), int(seed), shuffle, block, drop_last)

    def __post_init__(self) -> None:
        if self.shuffle not in ("rows", "blocks", None):
            raise StoreError(f"shuffle={self.shuffle!r}; expected 'rows', 'blocks' or None.")
        _at_least_one("size", self.size)
        if (self.block is None) == (self.shuffle == "blocks"):
            raise StoreError(
                f"block={self.block} with shuffle={self.shuffle!r}: it is for 'blocks'."
            )
        if self.block is not None:
            _at_least_one("block", self.block)
            if self.block > self.size:
                raise StoreError(
                    f"block={self.block} with size={self.size}: a batch would be a part of one "
                    "block; give blocks of fewer rows than a batch has."
                )
        if self.per_epoch == 0:
            raise StoreError(
                f"the store has {self.n} rows, which make no batch of {self.size}"
                f"{' with drop_last=True' if self.n else ''}."
            )

    @property
    def per_epoch(self) -> int:
        """Batches of one epoch."""
        return self.n // self.size if self.drop_last else -(-self.n // self.size)

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> Int[ndarray, " row"]:
        """The rows of the ``step``-th batch since the beginning, or one of equal parts of it."""
        epoch, batch = divmod(step, self.per_epoch)
        first = batch * self.size
        count = min(self.size, self.n - first)
        rank, world = part
        places = np.arange(first + count * rank // world, first + count * (rank + 1) // world)
        if self.shuffle is None:
            return places
        if self.block is None:
            return _permutation(self.n, self.seed, epoch)(places)
        # The store as a ring, so that its short last block is elsewhere in each epoch.
        turn = int(keys(self.seed, epoch, 1)[0] % np.uint64(self.n))
        whole = self.n // self.block
        block, within = np.divmod(places, self.block)
        inside = block < whole
        block[inside] = _permutation(whole, self.seed, epoch)(block[inside])
        return (block * self.block + within + turn) % self.n

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """How a saved order differs, option by option."""
        return [
            f"{name} {saved.get(name)!r}, here {value!r}"
            for name, value in vars(self).items()
            if saved.get(name) != value
        ]


# A permutation of few rows keeps their order, which the batches of an epoch share.
_permutation = lru_cache(maxsize=8)(Permutation)


@dataclass(frozen=True)
class Reading:
    """How a batch is read: from which shards, which sites, and what is made of them."""

    maps: Maps
    order: Order
    sites: tuple[str, ...]
    dtype: torch.dtype | None
    device: torch.device | None
    part: tuple[int, int]

    def __call__(self, step: int) -> Rows:
        index = self.order.rows(step, self.part)
        pin = self.device is not None and self.device.type == "cuda"
        read = self.maps.gather(index, (*self.sites, *COLUMNS), pin=pin)
        columns = {name: read.pop(name) for name in COLUMNS}
        rows = Rows(read, **columns)
        if self.device is not None:  # before the cast: fewer bytes to move
            rows = rows.to(self.device)
        return rows if self.dtype is None else rows.to(rows.tokens.device, self.dtype)


class Batches(IterableDataset[Rows]):
    """Batches of a store, made by :meth:`interp.store.store.ActivationStore.batches`.

    An iterator, for one pass over all epochs: ``next`` and ``for`` go on where it stands. Some
    batches are read ahead in a thread, which ends with the iterator, or at :meth:`close`.

    In a ``DataLoader(batches, batch_size=None, num_workers=n)`` the workers share out the batches,
    and the loader puts them back in order. They are copies: the position is then theirs, and
    :meth:`state_dict` here does not move; save positions without workers (reading ahead needs none).
    """

    def __init__(
        self, reading: Reading, *, epochs: int | None, prefetch: int, identity: str
    ) -> None:
        super().__init__()
        if epochs is not None:
            _at_least_one("epochs", epochs)
        if not _whole(prefetch) or prefetch < 0:
            raise StoreError(f"prefetch={prefetch!r}; expected how many batches, 0 or more.")
        part, size = reading.part, reading.order.size
        if not (isinstance(part, tuple | list) and len(part) == 2 and all(map(_whole, part)) and (
            0 <= part[0] < part[1] and size % part[1] == 0
        )):  # fmt: skip
            raise StoreError(
                f"part={reading.part} of batches of {size} rows; expected (rank, world) with "
                "0 <= rank < world, and a size that world divides."
            )
        self._reading, self._epochs, self._prefetch = reading, epochs, prefetch
        self._identity = identity
        self._step = 0
        self._stride = 1
        self._ended = False
        self._ahead: _Ahead | None = None

    def __repr__(self) -> str:
        order = self._reading.order
        total = "∞" if self._epochs is None else str(len(self))
        part = "" if self._reading.part == (0, 1) else f", part {self._reading.part}"
        return (
            f"Batches({self._step} of {total} × {order.size} rows, shuffle={order.shuffle!r}, "
            f"seed={order.seed}{part})"
        )

    def __len__(self) -> int:
        """How many batches all epochs have, those handed out included.

        Raises:
            TypeError: they have no end (``epochs=None``).
        """
        if self._epochs is None:
            raise TypeError("batches with epochs=None have no end, and so no length.")
        return self._epochs * self._reading.order.per_epoch

    def __iter__(self) -> Iterator[Rows]:
        if self._ended:  # a second ``for`` would find nothing, and say nothing
            raise StoreError(
                "these batches have been read to their end: make new ones with store.batches(...), or "
                "ask for several epochs (epochs=)."
            )
        worker = get_worker_info()
        if worker is not None and self._stride == 1:
            self._ahead = None  # a thread of another process
            self._step, self._stride = self._step + worker.id, worker.num_workers
        return self

    def __next__(self) -> Rows:
        if self._epochs is not None and self._step >= len(self):
            self.close()
            self._ended = True
            raise StopIteration
        if self._ahead is None:
            self._ahead = _Ahead(self._reading, self._steps(), self._prefetch)
            self._finalizer = weakref.finalize(self, self._ahead.close)
        try:
            rows = self._ahead.next()
        except BaseException:
            self.close()  # what was read ahead begins one batch too late
            raise
        self._step += self._stride
        return rows

    def _steps(self) -> Iterator[int]:
        if self._epochs is None:
            return count(self._step, self._stride)
        return iter(range(self._step, len(self), self._stride))

    def state_dict(self) -> dict[str, Any]:
        """The position after the batches handed out so far, as JSON values.

        The same for every rank (``part``); sites, dtype and device do not matter to it.
        """
        return {"store": self._identity, **vars(self._reading.order), "step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that was saved: what follows is what followed there.

        Raises:
            StoreError: it was saved with another store, seed, size or order, by name.
        """
        if not isinstance(state, Mapping):
            raise StoreError(f"{state!r} is no position; expected what state_dict() returned.")
        told = self._reading.order.differences(state)
        if (saved := str(state.get("store"))) != self._identity:
            this = saved.split(":")[0] == self._identity.split(":")[0]
            told.insert(0, "other shards of this unfinished store" if this else "another store")
        step: Any = state.get("step")
        if told or not _whole(step) or step < 0:
            raise StoreError(
                f"this position does not belong to these batches: it was saved with "
                f"{'; '.join(told) or f'step {step!r}'}. Make the batches with the same options."
            )
        self.close()
        self._step, self._ended = step, False

    def close(self) -> None:
        """End the thread that reads ahead. ``next`` starts it again."""
        if self._ahead is not None:
            self._finalizer()
            self._ahead = None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        state.pop("_finalizer", None)
        return {**state, "_ahead": None}


class _Ahead:
    """Reads the next few batches in a thread. Holds nothing of who asks, so that it can be dropped."""

    def __init__(self, reading: Reading, steps: Iterator[int], depth: int) -> None:
        self._reading, self._steps, self._depth = reading, steps, depth
        self._pool = ThreadPoolExecutor(1, "interp-batches") if depth else None
        self._waiting: deque[Future[Rows]] = deque()

    def next(self) -> Rows:
        if self._pool is None:
            return self._reading(next(self._steps))
        while len(self._waiting) <= self._depth:
            step = next(self._steps, None)
            if step is None:
                break
            self._waiting.append(self._pool.submit(self._reading, step))
        return self._waiting.popleft().result()

    def close(self) -> None:
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _at_least_one(name: str, value: Any) -> None:
    if not _whole(value) or value < 1:
        raise StoreError(f"{name}={value!r}; expected a whole number, 1 or more.")
