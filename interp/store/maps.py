"""The shards of a store as memory maps, and rows gathered from them in any order.

A gather sorts its indices once, so that each shard is read in one go and forwards, as a disk likes
it. From each shard some rows at a time are copied into a buffer that stays in the processor's cache,
and from there to their places in the result: main memory is read once and written once.
A row is moved as bytes, whatever its dtype: bfloat16 costs half of float32.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from interp.errors import StoreError
from interp.store.manifest import Manifest, ShardRecord, shard_name
from interp.store.shard import COLUMNS, open_shard

__all__ = ["Maps"]

_MOST_OPEN = 1024
_BUFFER = 2**20  # bytes
_MAPPED = 2**25  # bytes from which glibc maps memory for each request and hands it back after


@dataclass(frozen=True, eq=False, repr=False)
class _Shard:
    """An open shard: its tensors, and the same as rows of bytes."""

    tensors: dict[str, Tensor]
    raw: dict[str, ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Maps:
    """The finished shards of a store, opened when they are first read.

    At most 1024 stay open, those used last. Copies in other processes open their own.

    Attributes:
        folder: of the store.
        manifest: the store's.
        records: the finished shards, in order.
    """

    folder: Path
    manifest: Manifest
    records: tuple[ShardRecord, ...]
    _open: OrderedDict[int, _Shard] = field(init=False, default_factory=OrderedDict)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __reduce__(self) -> Any:
        return Maps, (self.folder, self.manifest, self.records)

    @cached_property
    def identity(self) -> str:
        """Of the store, and of the shards that are there while it is unfinished: which row is which."""
        if self.manifest.complete:
            return self.manifest.id
        shards = str([record.index for record in self.records])
        return f"{self.manifest.id}:{hashlib.sha256(shards.encode()).hexdigest()}"

    @cached_property
    def starts(self) -> Int[ndarray, " bound"]:
        """The first row of each shard, and at the end the number of rows."""
        return np.cumsum([0, *(record.rows for record in self.records)], dtype=np.int64)

    def shard(self, place: int) -> Mapping[str, Tensor]:
        """The tensors of one shard (the ``place``-th finished one), as views of its file.

        Raises:
            StoreError: it is missing, was cut short, or does not hold what the manifest says.
        """
        return self._shard(place).tensors

    def _shard(self, place: int) -> _Shard:
        # No lock: another thread may at worst open a shard a second time.
        shard = self._open.pop(place, None)
        if shard is None:
            tensors = self._opened(self.records[place])
            shard = _Shard(tensors, {name: _raw(x) for name, x in tensors.items()})
        self._open[place] = shard
        while len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return shard

    def gather(
        self, index: Int[ndarray, " row"], names: Sequence[str], *, pin: bool = False
    ) -> dict[str, Tensor]:
        """Rows in the order of ``index``, of sites and columns.

        Args:
            index: from 0 to below ``len(self)``; not checked.
            pin: in page-locked memory, for copies to a GPU that do not wait.
        """
        shapes = {name: (len(index), *self.manifest.sites.get(name, ())) for name in names}
        dtypes = {name: COLUMNS.get(name) or getattr(torch, self.manifest.dtype) for name in names}
        out = {name: _empty(shapes[name], dtypes[name], pin) for name in names}
        targets = {name: _raw(x) for name, x in out.items()}
        order = np.argsort(index)
        ordered = index[order]
        cuts = np.searchsorted(ordered, self.starts)
        for place in np.flatnonzero(np.diff(cuts)):
            mine = slice(cuts[place], cuts[place + 1])
            shard, rows, to = (
                self._shard(int(place)),
                ordered[mine] - self.starts[place],
                order[mine],
            )
            for name, target in targets.items():
                _copy(shard.raw[name], rows, target, to)
        return out

    def _opened(self, record: ShardRecord) -> dict[str, Tensor]:
        path = self.folder / shard_name(record.index)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise StoreError(
                f"shard {str(path)!r} is missing ({error.strerror}): take it from a copy. "
                "`interp store verify` names every damaged file of a store."
            ) from error
        if size != record.bytes:  # reading past the end of a map ends the process
            raise StoreError(
                f"shard {str(path)!r} has {size:,} bytes, its record says {record.bytes:,}: it is "
                "damaged. `interp store verify` names every damaged file of a store."
            )
        tensors = open_shard(path)
        kind = getattr(torch, self.manifest.dtype)
        wanted = {name: ((record.rows,), dtype) for name, dtype in COLUMNS.items()} | {
            site: ((record.rows, *shape), kind) for site, shape in self.manifest.sites.items()
        }
        found = {name: (tuple(x.shape), x.dtype) for name, x in tensors.items()}
        if found != wanted:
            raise StoreError(
                f"shard {str(path)!r} holds {found}, the manifest says {wanted}: it belongs to "
                "another store."
            )
        return tensors


def _empty(shape: tuple[int, ...], dtype: torch.dtype, pin: bool) -> Tensor:
    """Memory for a result. Where the C library would map it anew each time, NumPy's comes in large
    pages, which halves the time of a gather."""
    size = prod(shape) * dtype.itemsize
    if pin or size < _MAPPED:
        return torch.empty(shape, dtype=dtype, pin_memory=pin)
    return torch.from_numpy(np.empty(size, np.uint8)).view(dtype).view(shape)


def _raw(x: Tensor) -> ndarray:
    """Rows as opaque bytes, one item for each."""
    size = prod(x.shape[1:]) * x.element_size()
    if not x.numel():
        return np.empty(len(x), np.dtype((np.void, max(size, 1))))
    return x.reshape(len(x), -1).view(torch.uint8).numpy().view(np.dtype((np.void, size)))[:, 0]


def _copy(
    source: ndarray,
    rows: Int[ndarray, " n"],
    out: ndarray,
    to: Int[ndarray, " n"],
) -> None:
    """``out[to] = source[rows]``, some rows at a time."""
    step = max(1, _BUFFER // source.dtype.itemsize)
    if len(rows) <= step:
        out[to] = source.take(rows)
        return
    buffer = np.empty(step, source.dtype)
    for start in range(0, len(rows), step):
        chosen = rows[start : start + step]
        piece = buffer[: len(chosen)]
        np.take(source, chosen, out=piece, mode="clip")  # other modes copy once more
        out[to[start : start + step]] = piece
