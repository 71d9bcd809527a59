"""What a store holds: the plan, which never changes, and a record of every shard.

``manifest.json`` is written before the first shard and says all that the shards' bytes depend on.
While the store is filled, each finished shard has a record in a file of its own; at the end the
records move into the manifest. Both kinds of file are JSON in one fixed form, with the sha256 of
their own content, so that an edit is noticed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from interp.corpora.packed import Cursor
from interp.errors import StoreError
from interp.store.files import listed, write_new
from interp.store.signed import parsed, plain, rendered

__all__ = [
    "MANIFEST", "Manifest", "ShardRecord", "numbered", "read_manifest", "read_record", "read_records",
    "read_state", "record_name", "recorded", "shard_name", "write_manifest", "write_record",
]  # fmt: skip

MANIFEST = "manifest.json"

_FORMAT = 1
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_COLUMN_BYTES = 4 + 8 + 4  # token, document, position
_PROGRESS = ("complete", "shards")


def shard_name(index: int) -> str:
    """The file of a shard.

    >>> shard_name(3)
    '000003.safetensors'
    """
    return f"{index:06d}.safetensors"


def record_name(index: int) -> str:
    """The file of a shard's record, until the store is complete."""
    return f"{index:06d}.json"


@dataclass(frozen=True)
class ShardRecord:
    """One finished shard.

    Attributes:
        index: its place in the store.
        rows: how many tokens' activations it holds.
        bytes: the size of its file.
        sha256: of its file.
        first_document: the least document number in it, -1 if it has no rows.
        last_document: the greatest, -1 if it has no rows.
        forwarded: how many tokens ran through the model for it: real ones, a BOS included.
        end: how far the corpus is packed with its last batch.
    """

    index: int
    rows: int
    bytes: int
    sha256: str
    first_document: int
    last_document: int
    forwarded: int
    end: Cursor

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ShardRecord:
        """The record that :func:`dataclasses.asdict` took apart."""
        return cls(**{**content, "end": Cursor(**content["end"])})


@dataclass(frozen=True)
class Manifest:
    """What a store holds, and all that its bytes depend on.

    Attributes:
        model: the name that the model was loaded by.
        weights_hash: sha256 of its weights.
        sites: the shape of one row at each site, e.g. ``{"L2.z": (6, 32)}``.
        pairs: sites that belong together, (what a transcoder reads, what it writes).
        dtype: of the activations: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        corpus: what identifies the corpus; JSON values.
        layout: how it is packed: context, batch, packing, bos, special, batches_per_shard.
        tokens: how many rows were asked for; None: all that the corpus has.
        seed: behind all that is random in packing.
        versions: of Python and the packages that the numbers depend on.
        complete: every shard is there.
        shards: their records, once complete.

    Raises:
        StoreError: the dtype is none of those.
    """

    model: str
    weights_hash: str
    sites: Mapping[str, tuple[int, ...]]
    pairs: tuple[tuple[str, str], ...]
    dtype: str
    corpus: Mapping[str, Any]
    layout: Mapping[str, Any]
    tokens: int | None
    seed: int
    versions: Mapping[str, str]
    complete: bool = False
    shards: tuple[ShardRecord, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in _BYTES:
            raise StoreError(f"a store's dtype is one of {', '.join(_BYTES)}, not {self.dtype!r}.")

    @cached_property
    def id(self) -> str:
        """sha256 over the plan: all but ``complete`` and ``shards``."""
        plan = asdict(replace(self, shards=()))  # thousands of records take a while to unpack
        content = {name: value for name, value in plan.items() if name not in _PROGRESS}
        return hashlib.sha256(plain(content).encode()).hexdigest()

    @property
    def row_bytes(self) -> int:
        """Bytes of one row on disk, its token, document and position included."""
        return sum(map(prod, self.sites.values())) * _BYTES[self.dtype] + _COLUMN_BYTES

    def differences(self, other: Manifest) -> list[str]:
        """How another plan differs from this store's, thing by thing; empty if they agree.

        Versions and progress do not count, nor does a model's name where its weights are the same.

        >>> store.differences(wanted)  # doctest: +SKIP
        ['dtype: the store has "bfloat16", here "float32"']
        """
        told = []
        if self.weights_hash != other.weights_hash:
            one, two = (f"{m.model} ({m.weights_hash[:12]})" for m in (self, other))
            told.append(f"weights: the store has {one}, here {two}")
        for name in ("sites", "pairs", "dtype", "tokens", "seed"):
            told += _differ(name, getattr(self, name), getattr(other, name))
        for name, title in (("corpus", "data"), ("layout", "layout")):
            one, two = getattr(self, name), getattr(other, name)
            for key in sorted({*one, *two}):
                told += _differ(f"{title} {key}", one.get(key), two.get(key))
        return told

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Manifest:
        """The manifest that :func:`dataclasses.asdict` took apart."""
        return cls(
            **{
                **content,
                "sites": {site: tuple(shape) for site, shape in content["sites"].items()},
                "pairs": tuple((read, written) for read, written in content["pairs"]),
                "shards": tuple(ShardRecord.from_json(record) for record in content["shards"]),
            }
        )


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a store.

    Raises:
        StoreError: there is none, it was edited or damaged, or is of a newer format.
    """
    content = _read(Path(folder) / MANIFEST, {f.name for f in fields(Manifest)})
    return Manifest.from_json(content)


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write a store's manifest in the place of the one it had.

    Raises:
        StoreError: it cannot be written.
    """
    write_new(Path(folder) / MANIFEST, [_rendered(asdict(manifest))])


def read_record(folder: str | Path, index: int, *, store: str) -> ShardRecord:
    """The record of one shard of an incomplete store, of the manifest with the id ``store``.

    Raises:
        StoreError: there is none, it was edited or damaged, or is of another store or shard.
    """
    path = Path(folder) / record_name(index)
    content = _read(path, {"store", "record"})
    record = ShardRecord.from_json(content["record"])
    if content["store"] != store:
        raise StoreError(f"{str(path)!r} belongs to another store ({content['store'][:12]}…).")
    if record.index != index:
        raise StoreError(f"{str(path)!r} is the record of shard {record.index}.")
    return record


def read_state(folder: str | Path) -> tuple[Manifest, dict[int, ShardRecord]]:
    """A store's manifest and the records of its finished shards by index, which belong together.

    A writer that finishes meanwhile moves the records into the manifest: then they are as finished.

    Raises:
        StoreError: the manifest or a record is missing, edited or damaged.
    """
    manifest, trouble = read_manifest(folder), None
    if not manifest.complete:
        records = {}
        try:
            for index in recorded(folder):
                records[index] = read_record(folder, index, store=manifest.id)
        except StoreError as error:
            trouble = error
        now = read_manifest(folder)
        if not now.complete and trouble is not None:
            raise trouble
        if not now.complete:
            return manifest, records
        manifest = now
    return manifest, {record.index: record for record in manifest.shards}


def read_records(folder: str | Path) -> dict[int, ShardRecord]:
    """The records alone (see :func:`read_state`)."""
    return read_state(folder)[1]


def recorded(folder: str | Path) -> list[int]:
    """The shards that have a record file, readable or not.

    Raises:
        StoreError: the folder may not be listed.
    """
    return numbered(listed(folder), ".json")


def numbered(names: Iterable[str], suffix: str) -> list[int]:
    """The shards that some files' names belong to: records end in .json, shards in .safetensors."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if re.fullmatch(r"[0-9]{6}|[1-9][0-9]{6,}", stem))


def write_record(folder: str | Path, record: ShardRecord, *, store: str) -> None:
    """Write the record of a shard whose file is in place.

    Raises:
        StoreError: it cannot be written.
    """
    content = {"store": store, "record": asdict(record)}
    write_new(Path(folder) / record_name(record.index), [_rendered(content)])


def _rendered(content: Mapping[str, Any]) -> bytes:
    return rendered(content, _FORMAT)


def _read(path: Path, keys: set[str]) -> dict[str, Any]:
    """What :func:`_rendered` wrote with these keys, if not a byte of it has changed."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(
            f"there is no {str(path)!r}: {str(path.parent)!r} is no store, or has lost it."
        ) from error
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be read: {error}.") from error
    damaged = StoreError(
        f"{str(path)!r} was edited or damaged: its content does not have the sha256 that it was "
        "written with. Take it from a copy, or harvest anew into another folder."
    )
    found = parsed(raw)
    if found is None:
        raise damaged
    content, made = found
    if made > _FORMAT:
        raise StoreError(
            f"{str(path)!r} has format {made}, made by a newer version of interp; "
            f"this one reads up to format {_FORMAT}. Upgrade interp."
        )
    if content.keys() != keys or raw != _rendered(content):
        raise damaged
    return content


def _differ(name: str, one: Any, two: Any) -> list[str]:
    """A line if two values differ as JSON, in which lists and tuples are the same."""
    if plain(one) == plain(two):
        return []
    return [f"{name}: the store has {plain(one)}, here {plain(two)}"]
