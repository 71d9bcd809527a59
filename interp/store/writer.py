"""Filling a store: one writer at a time, who finds what is there and adds what is not.

A shard is in the store once its record is; the record is written after the shard's file. So a
writer that is killed loses the shard it was writing, and the next one with the same plan goes on. A
plan that differs is refused, thing by thing: a store never holds rows of two kinds.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from filelock import FileLock
from torch import Tensor

from interp.corpora.packed import Cursor
from interp.errors import StoreError, warn
from interp.store.files import make_folder, remove, temporaries
from interp.store.lock import LOCK, acquire, release
from interp.store.manifest import (
    MANIFEST,
    Manifest,
    ShardRecord,
    read_manifest,
    read_record,
    read_records,
    read_state,
    record_name,
    recorded,
    shard_name,
    write_manifest,
    write_record,
)
from interp.store.rows import Rows
from interp.store.shard import COLUMNS, write_shard

__all__ = ["Writer"]


class Writer:
    """Adds shards to a store. Make one with :meth:`open` or :meth:`join`; close it, or use ``with``.

    Attributes:
        folder: the store's.
        manifest: the plan as it stands on disk.
        done: the records of the shards that are there, by index.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, done: dict[int, ShardRecord], lock: FileLock | None
    ) -> None:
        self.folder, self.manifest, self.done = folder, manifest, done
        self._lock, self._id = lock, manifest.id

    @classmethod
    def open(cls, folder: str | Path, manifest: Manifest, *, resume: bool = True) -> Writer:
        """Begin a store, or go on with one of the same plan; nobody else can write until closed.

        What writers that died have left is removed. A shard whose record is damaged, or whose file
        is missing or has another size, counts as not done, with a warning.

        Args:
            folder: a new or empty one, or that of a store.
            manifest: the plan. Where the store's differs only in versions, the store's stays, with
                a warning, as the numbers may then differ in their last bits.
            resume: False refuses a store that is there already.

        Raises:
            StoreError: somebody is writing; the folder holds other things; the store has another
                plan, which is told thing by thing; its manifest is damaged; it cannot be written.
        """
        folder = Path(folder)
        _check_place(folder, resume=resume)
        make_folder(folder)
        lock = acquire(folder)
        try:
            if (folder / MANIFEST).exists():
                manifest = _agreed(folder, manifest)
            else:
                manifest = replace(manifest, complete=False, shards=())
                write_manifest(folder, manifest)
            remove(temporaries(folder))
            return cls(folder, *_taken_up(folder, manifest), lock)
        except BaseException:
            release(lock)
            raise

    @classmethod
    def join(cls, folder: str | Path) -> Writer:
        """Help the writer that has opened the store, from another process.

        Both must agree on who writes which shards. ``done`` is what was there when joining.

        Raises:
            StoreError: there is no store, or it is damaged.
        """
        return cls(Path(folder), *read_state(folder), None)

    def write(self, index: int, rows: Rows, *, end: Cursor, forwarded: int) -> ShardRecord:
        """Add one shard; it is in the store when this returns.

        Args:
            index: its place in the store.
            rows: exactly the manifest's sites, shapes and dtype; none is converted.
            end: how far the corpus is packed with its last batch.
            forwarded: how many tokens ran through the model for it.

        Raises:
            StoreError: the shard is there already, the rows do not fit the manifest, or there is no
                room; then nothing of it is left, and all others are as they were.
        """
        if index in self.done or (self.folder / record_name(index)).exists():
            raise StoreError(f"shard {index} is in {str(self.folder)!r} already; it is kept as is.")
        if self.manifest.complete:
            raise StoreError(
                f"{str(self.folder)!r} is complete with {len(self.done)} shards: there is no "
                f"shard {index} to add. Harvest into another folder."
            )
        tensors = self._checked(index, rows)
        known = (int(rows.document.min()), int(rows.document.max())) if len(rows) else (-1, -1)
        path, header = self.folder / shard_name(index), {"store": self._id, "shard": str(index)}
        try:
            size, sha256 = write_shard(path, tensors, header=header)
            record = ShardRecord(index, len(rows), size, sha256, *known, forwarded, end)
            write_record(self.folder, record, store=self._id)
        except StoreError as error:
            with suppress(StoreError):  # without its record a shard would only take room
                remove([self.folder / record_name(index), path])
            raise StoreError(f"{error}{self._still_needed()}") from error.__cause__
        self.done[index] = record
        return record

    def finish(self, n_shards: int) -> None:
        """Declare the store complete with shards 0 … n_shards-1: the records move into the manifest.

        Nothing happens to a store that is complete with as many shards.

        Raises:
            StoreError: shards are missing or left over (each is named), or this writer has joined
                another, who is to finish.
        """
        if self._lock is None:
            raise StoreError(
                f"{str(self.folder)!r} was opened by another writer: let that one finish it."
            )
        done = read_records(self.folder)
        lost = [i for i in range(n_shards) if i not in done or not _in_place(self.folder, done[i])]
        over = [i for i in done if i >= n_shards]
        if lost or over:
            raise StoreError(
                f"{str(self.folder)!r} is not complete with {n_shards} shards; not there: "
                f"{_listed(lost)}; too many: {_listed(over)}. Run the same call again: it adds what "
                "is missing."
            )
        if not self.manifest.complete:
            shards = tuple(done[index] for index in range(n_shards))
            self.manifest = replace(self.manifest, complete=True, shards=shards)
            write_manifest(self.folder, self.manifest)
        remove(self.folder / record_name(index) for index in recorded(self.folder))
        self.done = done

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            release(self._lock)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "complete" if self.manifest.complete else f"{len(self.done)} shards so far"
        return f"Writer({str(self.folder)!r}, {state})"

    def _checked(self, index: int, rows: Rows) -> dict[str, Tensor]:
        """The tensors to write, if they are what the manifest says."""
        expected = {site: tuple(shape) for site, shape in self.manifest.sites.items()}
        given = {site: tuple(x.shape[1:]) for site, x in rows.tensors.items()}
        columns = {name: getattr(rows, name) for name in COLUMNS}
        lengths = {name: len(x) for name, x in {**rows.tensors, **columns}.items()}
        types = {str(x.dtype).removeprefix("torch.") for x in rows.tensors.values()}
        for what, has, wants in (
            ("sites and shapes", given, expected),
            ("numbers of rows", lengths, dict.fromkeys(lengths, len(rows))),
            ("dtypes", types, {self.manifest.dtype}),
        ):
            if has != wants:
                raise StoreError(f"shard {index} has {what} {has}; the store holds {wants}.")
        out = {site: x.cpu() for site, x in rows.tensors.items()}
        return out | {name: columns[name].cpu().to(dtype) for name, dtype in COLUMNS.items()}

    def _still_needed(self) -> str:
        """How much the rest of the store will take, if it is known."""
        if self.manifest.tokens is None:
            return ""
        rows = self.manifest.tokens - sum(record.rows for record in self.done.values())
        return f" The rest of the store takes about {rows * self.manifest.row_bytes:,} bytes."


def _check_place(folder: Path, *, resume: bool) -> None:
    """Refuse what is no place for a store, before anything is written there.

    Raises:
        StoreError: it is a file, a folder of other things, or a store that is not to be resumed.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StoreError(f"{str(folder)!r} is a file; a store is a folder. Name another place.")
    if (folder / MANIFEST).exists():
        if resume:
            return
        raise StoreError(
            f"{str(folder)!r} holds a store already, and a store is never overwritten. Resume it "
            "(resume=True), remove it yourself, or name another folder."
        )
    ours = {LOCK, *(path.name for path in temporaries(folder))}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if foreign:
        raise StoreError(
            f"{str(folder)!r} is no store ({MANIFEST} is missing) and is not empty: it holds "
            f"{foreign[0]!r}{f' and {len(foreign) - 1} more' if foreign[1:] else ''}. "
            "Name a new or empty folder."
        )


def _agreed(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest of a store, if it is what is wanted.

    Raises:
        StoreError: it differs, or is damaged.
    """
    own = read_manifest(folder)
    if differences := own.differences(manifest):
        raise StoreError(
            f"{str(folder)!r} holds another store: {'; '.join(differences)}. "
            "Ask for what it holds, or harvest into another folder."
        )
    names = sorted({*own.versions, *manifest.versions})
    pairs = [(name, own.versions.get(name), manifest.versions.get(name)) for name in names]
    changed = [f"{name} {one}, here {two}" for name, one, two in pairs if one != two]
    if changed and not own.complete:
        warn(
            f"the store in {str(folder)!r} was begun with {'; '.join(changed)}: the shards to come "
            "may differ in their last bits from what it would have held. Its manifest stays as it is."
        )
    return own


def _taken_up(folder: Path, manifest: Manifest) -> tuple[Manifest, dict[int, ShardRecord]]:
    """The manifest, and the records of the shards that count, with the folder in that state."""
    records, doubts = {record.index: record for record in manifest.shards}, []
    if not manifest.complete:
        for index in recorded(folder):
            try:
                records[index] = read_record(folder, index, store=manifest.id)
            except StoreError as error:
                doubts.append(str(error))
    done = {i: record for i, record in records.items() if _in_place(folder, record)}
    if lost := sorted({*records} - {*done}):
        doubts.append(f"shards missing or of another size: {_listed(lost)}")
    if doubts:
        warn(f"{str(folder)!r} is damaged and computed anew there: {'; '.join(doubts)}")
    if manifest.complete and lost:
        for record in done.values():
            write_record(folder, record, store=manifest.id)
        manifest = replace(manifest, complete=False, shards=())
        write_manifest(folder, manifest)
    keep = {} if manifest.complete else done
    remove(folder / record_name(index) for index in recorded(folder) if index not in keep)
    return manifest, done


def _in_place(folder: Path, record: ShardRecord) -> bool:
    path = folder / shard_name(record.index)
    return path.is_file() and path.stat().st_size == record.bytes


def _listed(indices: Iterable[int]) -> str:
    names = [shard_name(index) for index in indices]
    return (", ".join(names[:8]) or "none") + (f" and {len(names) - 8} more" if names[8:] else "")
