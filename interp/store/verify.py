"""Is a store still what was written? Every file is read, and what is wrong is told file by file.

1. The manifest and the records carry the sha256 of their own content.
2. Each shard must have its record's size and sha256. One that has not is looked at closer: another
   shard's content, another store's, too short, too long, or changed bytes.
3. What an intact shard says about itself must be what the manifest says: sites, shapes, dtype, rows,
   documents.
4. Everything else in the folder is foreign.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from interp.errors import StoreError
from interp.progress import Bar
from interp.store.files import PIECE, is_temporary, listed
from interp.store.lock import LOCK, being_written
from interp.store.manifest import (
    MANIFEST,
    Manifest,
    ShardRecord,
    numbered,
    read_manifest,
    read_record,
    record_name,
    shard_name,
)
from interp.store.shard import COLUMNS, open_shard, read_header

__all__ = ["Problem", "Verification", "verify"]

_REMEDY = (
    "To mend a store: remove the named files, unless you put them there on purpose, and run the "
    "harvest that made it again; it computes what is missing."
)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file.

    Attributes:
        file: its name in the store's folder.
        kind: ``"missing"``, ``"damaged"`` (bytes changed, or a JSON file edited), ``"truncated"``,
            ``"too long"``, ``"swapped"`` (another shard's content), ``"other store"``,
            ``"contradiction"`` (intact, but not what the manifest says), ``"no record"`` (a shard
            that was not finished), ``"left over"`` (of a writer that died) or ``"foreign"``.
        detail: what was found, in words.
    """

    file: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.detail}"


@dataclass(frozen=True, repr=False)
class Verification:
    """What was found in a store.

    Attributes:
        folder: the store's.
        problems: what is wrong, in the order of the files' names.
        shards: how many shards were read.
        rows: how many rows their records count.
        bytes: how many bytes of shards were read.
        complete: the manifest says that every shard is there.
    """

    folder: str
    problems: tuple[Problem, ...]
    shards: int
    rows: int
    bytes: int
    complete: bool

    @property
    def ok(self) -> bool:
        """Nothing is wrong. An incomplete store can be ok."""
        return not self.problems

    def raise_if_bad(self) -> None:
        """Do nothing if all is well.

        Raises:
            StoreError: something is wrong; the message names each file.
        """
        if not self.ok:
            raise StoreError(str(self))

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        head = (
            f"{self.folder}: {'ok' if self.ok else f'{len(self.problems)} problems'} · {state} · "
            f"{self.shards} shards · {self.rows:,} rows · {self.bytes:,} bytes read"
        )
        tail = [f"  {problem}" for problem in self.problems]
        mendable = all(problem.file != MANIFEST for problem in self.problems)
        return "\n".join([head, *tail, *([] if self.ok or not mendable else [_REMEDY])])


def verify(folder: str | Path, *, progress: bool | None = None) -> Verification:
    """Read a whole store and tell what is wrong with it.

    Two shards are read at a time, in pieces; nothing is written or mended. A store can be verified
    while it is filled: what its writer is about counts as nothing wrong.

    Args:
        progress: a progress bar; None shows it where a person can see it.

    Raises:
        StoreError: there is no such folder, or it may not be listed. All that is wrong inside is
            told, not raised.

    >>> interp.store.verify.verify("activations")  # doctest: +SKIP
    activations: 1 problems · complete · 6 shards · 5,012 rows · 1,204,224 bytes read
      000003.safetensors: damaged: 1 or more bytes changed since it was written
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"there is no folder {str(folder)!r}; expected that of a store.")
    while True:
        found = _verified(folder, progress)
        if found.complete or not _complete(folder):
            return found
        # its writer has finished meanwhile: what was read is no more as it was


def _complete(folder: Path) -> bool:
    try:
        return read_manifest(folder).complete
    except StoreError:
        return False


def _verified(folder: Path, progress: bool | None) -> Verification:
    """What is wrong, by the manifest and the files as they are now."""
    busy = being_written(folder)
    try:
        manifest = read_manifest(folder)
    except StoreError as error:
        kind = "damaged" if (folder / MANIFEST).exists() else "missing"
        problem = Problem(MANIFEST, kind, f"{error} Without it the shards cannot be told.")
        return Verification(str(folder), (problem,), 0, 0, 0, False)
    names = listed(folder)
    records, problems = _records(folder, manifest, names)
    sizes = _sizes(folder, records)
    problems += [
        Problem(shard_name(index), "missing", f"its record counts {record.rows:,} rows")
        for index, record in records.items()
        if index not in sizes
    ]
    total = sum(size // PIECE + 1 for size in sizes.values())
    with Bar(total=total, what="verify", show=progress) as bar:
        problems += _read(folder, manifest, records, sizes, bar.advance)
    problems = _of_the_manifest(problems, len(sizes))
    problems += _others(folder, manifest, records, names, busy or being_written(folder))
    return Verification(
        folder=str(folder),
        problems=tuple(sorted(set(problems), key=lambda problem: (problem.file, problem.kind))),
        shards=len(sizes),
        rows=sum(record.rows for record in records.values()),
        bytes=sum(sizes.values()),
        complete=manifest.complete,
    )


def _records(
    folder: Path, manifest: Manifest, names: Sequence[str]
) -> tuple[dict[int, ShardRecord], list[Problem]]:
    """The records that can be read, and what is wrong with the others."""
    if manifest.complete:
        return {record.index: record for record in manifest.shards}, []
    records, problems = {}, []
    for index in numbered(names, ".json"):
        try:
            records[index] = read_record(folder, index, store=manifest.id)
        except StoreError as error:
            problems.append(Problem(record_name(index), "damaged", str(error)))
    return records, problems


def _sizes(folder: Path, records: Mapping[int, ShardRecord]) -> dict[int, int]:
    """The size of each shard's file that is there."""
    sizes = {}
    for index in records:
        path = folder / shard_name(index)
        with suppress(OSError):
            if path.is_file():
                sizes[index] = path.stat().st_size
    return sizes


def _read(
    folder: Path,
    manifest: Manifest,
    records: Mapping[int, ShardRecord],
    sizes: Mapping[int, int],
    advance: Callable[[], None],
) -> list[Problem]:
    """What is wrong with the shards that are there."""
    owner = {record.sha256: index for index, record in records.items()}
    found: list[Problem] = []
    with ThreadPoolExecutor(2) as readers:
        hashing = {
            readers.submit(_sha256, folder / shard_name(index), advance): records[index]
            for index in sizes
        }
        try:
            for future in as_completed(hashing):
                record = hashing[future]
                path = folder / shard_name(record.index)
                if isinstance(sha256 := future.result(), OSError):
                    found.append(Problem(path.name, "damaged", f"it cannot be read: {sha256}"))
                elif sha256 != record.sha256:
                    size = sizes[record.index]
                    found.append(_diagnosed(path, size, manifest, record, owner.get(sha256)))
                else:
                    found += _contradictions(path, manifest, record)
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _sha256(path: Path, advance: Callable[[], None]) -> str | OSError:
    """A file's hash, read in pieces."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(PIECE))
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(piece):
                digest.update(piece[:count])
                advance()
    except OSError as error:
        return error
    return digest.hexdigest()


def _diagnosed(
    path: Path, size: int, manifest: Manifest, record: ShardRecord, owner: int | None
) -> Problem:
    """Why a shard has not the hash of its record."""
    if owner is not None:
        return Problem(path.name, "swapped", f"it holds the content of {shard_name(owner)}")
    try:
        named = str(read_header(path)["__metadata__"].get("store", ""))
    except StoreError:
        named = ""
    # Two ids agree in few letters; where most agree, it is this store's with changed bytes.
    if sum(one != two for one, two in zip(named, manifest.id, strict=False)) > len(named) // 2:
        detail = f"its header names the store {named[:12]}…, not {manifest.id[:12]}…"
        return Problem(path.name, "other store", detail)
    if size < record.bytes:
        return Problem(path.name, "truncated", f"{size:,} bytes of {record.bytes:,}")
    if size > record.bytes:
        return Problem(path.name, "too long", f"{size:,} bytes, {record.bytes:,} were written")
    return Problem(path.name, "damaged", "1 or more bytes changed since it was written")


def _of_the_manifest(problems: list[Problem], shards: int) -> list[Problem]:
    """Where all shards are of one other store, the manifest is what does not belong here."""
    other = {problem.detail for problem in problems if problem.kind == "other store"}
    told = [problem for problem in problems if problem.kind != "other store"]
    if len(other) != 1 or shards < 2 or len(problems) - len(told) < shards:
        return problems
    detail = f"of each of the {shards} shards: {other.pop()}; put their own manifest back"
    return [*told, Problem(MANIFEST, "other store", detail)]


def _contradictions(path: Path, manifest: Manifest, record: ShardRecord) -> Iterator[Problem]:
    """Where an intact shard is not what the manifest and its record say."""
    try:
        header, tensors = read_header(path), open_shard(path)
    except StoreError as error:
        yield Problem(path.name, "contradiction", str(error))
        return
    labels = {"store": manifest.id, "shard": str(record.index)}
    shapes = {site: (manifest.dtype, record.rows, *shape) for site, shape in manifest.sites.items()}
    columns = {name: (_name(dtype), record.rows) for name, dtype in COLUMNS.items()}
    found = {name: (_name(x.dtype), *x.shape) for name, x in tensors.items()}
    document = tensors.get("document", torch.tensor([]))
    span = (int(document.min()), int(document.max())) if len(document) else (-1, -1)
    for what, has, wants in (
        ("names", header["__metadata__"], labels),
        ("tensors", found, {**shapes, **columns}),
        ("documents", span, (record.first_document, record.last_document)),
    ):
        if has != wants:
            detail = f"its {what} are {has}; by the manifest they are {wants}"
            yield Problem(path.name, "contradiction", detail)


def _others(
    folder: Path,
    manifest: Manifest,
    records: Mapping[int, ShardRecord],
    names: Sequence[str],
    busy: bool,
) -> Iterator[Problem]:
    """The files that belong to no finished shard."""
    files = {shard_name(index): index for index in numbered(names, ".safetensors")}
    known = {MANIFEST, LOCK, *map(shard_name, records)}
    record_files = set(map(record_name, numbered(names, ".json")))
    for name in (name for name in names if name not in known):
        if name in record_files:
            if manifest.complete and not busy:
                yield Problem(name, "left over", "its shard's record is in the manifest already")
        elif is_temporary(name):
            if not busy:
                yield Problem(name, "left over", "of a writer that died; the next one removes it")
        elif name in files and not manifest.complete:
            if not busy and record_name(files[name]) not in record_files:
                yield Problem(name, "no record", "it was not finished, or has lost its record")
        else:
            yield Problem(name, "foreign", "it is no part of this store")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
