"""``ActivationStore``: a store on disk, read like one long table of rows.

Row ``i`` is the activations of one token, at every site, with the token's id, its document in the
corpus and its position there. Shards are memory maps: opening costs nothing, and what is not asked
for is not read. A store that is still being filled can be read too; it has the rows of its finished
shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from interp.corpora.reading import read
from interp.errors import StoreError
from interp.store.asking import Sites, kind_and_place, row_numbers, site_names, spans, tokens_named
from interp.store.lookup import Lookup
from interp.store.manifest import Manifest, read_state
from interp.store.maps import Maps
from interp.store.rows import Rows
from interp.store.shard import COLUMNS
from interp.tokens import Tokenization

if TYPE_CHECKING:
    from interp.store.batches import Batches, Shuffle
    from interp.store.statistics import Statistics

__all__ = ["ActivationStore"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class ActivationStore:
    """Activations on disk, made by ``interp.harvest``; open one with :meth:`open`.

    Attributes:
        folder: where it lies.
        manifest: what it was made of: model, data, layout, and the versions that made it.
        sites: the sites it was opened with, and the shape of one row of each.
    """

    folder: Path
    manifest: Manifest
    sites: Mapping[str, tuple[int, ...]]
    _maps: Maps = field(repr=False)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        model: Any = None,
        sites: Sites = None,
        corpus: Any = None,
    ) -> ActivationStore:
        """Open a store, and make sure that it is the one meant.

        Args:
            folder: where it lies.
            model: the model that it must have been made with.
            sites: those that it must have, named as ``interp.harvest`` takes them (``"L2.mlp"`` is
                a pair); rows then hold these alone, in this order.
            corpus: the data that it must have been made from, as ``interp.harvest`` takes it.

        Raises:
            StoreError: no store, or a damaged one; made with other weights or from other data, or
                without one of the sites: what differs is named.
        """
        folder = Path(folder)
        manifest, records = read_state(folder)
        _check(folder, manifest, model, corpus)
        done = tuple(records[index] for index in sorted(records))
        names = site_names(folder, manifest.sites, sites)
        return cls(
            folder, manifest, {n: manifest.sites[n] for n in names}, Maps(folder, manifest, done)
        )

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        state = "" if self.complete else ", unfinished"
        return (
            f"ActivationStore({str(self.folder)!r}: {len(self):,} rows of "
            f"{', '.join(self.sites)}; {self.manifest.dtype}, {self.manifest.model}{state})"
        )

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return self.manifest.complete

    @property
    def dtype(self) -> torch.dtype:
        """Of the activations."""
        found = getattr(torch, self.manifest.dtype)
        assert isinstance(found, torch.dtype)  # the manifest allows no other names
        return found

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Sites that a transcoder reads and writes."""
        return self.manifest.pairs

    @property
    def nbytes(self) -> int:
        """Bytes of all finished shards on disk."""
        return sum(record.bytes for record in self._maps.records)

    @property
    def n_documents(self) -> int:
        """How far into the corpus the rows reach: their greatest document number, plus one."""
        return 1 + max((record.last_document for record in self._maps.records), default=-1)

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self._maps)

    @cached_property
    def _identity(self) -> str:
        return self.manifest.id

    def rows(
        self,
        index: int | slice | Sequence[int] | Int[Tensor, " row"] | Int[ndarray, " row"],
        *,
        sites: Sites = None,
    ) -> Rows:
        """Rows by number, in any order; a row may be asked for twice.

        Args:
            index: a number (gives one row), a slice, or several numbers; from 0 up.
            sites: some of the store's sites; None: those that it was opened with.

        Raises:
            StoreError: a row or a site that the store does not have.
        """
        return self._read(row_numbers(index, len(self)), sites)

    def at(
        self,
        document: int | Sequence[int] | Int[Tensor, " documents"] | Int[ndarray, " documents"],
        position: int | Sequence[int] | Int[Tensor, " positions"] | Int[ndarray, " positions"],
        *,
        sites: Sites = None,
    ) -> Rows:
        """The rows of some tokens (see :meth:`find`)."""
        return self._read(self.find(document, position).numpy(), sites)

    def find(
        self,
        document: int | Sequence[int] | Int[Tensor, " documents"] | Int[ndarray, " documents"],
        position: int | Sequence[int] | Int[Tensor, " positions"] | Int[ndarray, " positions"],
    ) -> Int[Tensor, " n"]:
        """The row numbers of some tokens.

        Args:
            document: numbers of documents in the corpus, from 0; one may stand for all.
            position: places among the document's tokens, a BOS at 0; one may stand for all.

        Raises:
            StoreError: a token that the store does not have, and why that may be.
        """
        documents, positions = tokens_named(document, position)
        rows = self._lookup.rows(documents, positions)
        if (rows < 0).any():
            first = int(np.argmax(rows < 0))
            raise StoreError(self._absent(int(documents[first]), int(positions[first])))
        return torch.from_numpy(rows)

    def context(self, row: int, *, before: int = 10, after: int = 5) -> Int[Tensor, " token"]:
        """The token ids around a row, of its own document, as far as the store has them.

        Tokens that are not stored (a BOS, say) are left out.
        """
        ids, _ = self._around(row, before, after)
        return ids

    def text(
        self,
        row: int,
        tokens: Any,
        *,
        before: int = 10,
        after: int = 5,
        marks: tuple[str, str] = ("«", "»"),
    ) -> str:
        """The text around a row with its own token marked: ``"The capital of« France» is"``.

        Args:
            tokens: who can read the ids: a model, or its tokenizer.
            before: how many tokens to show before it.
            after: how many after it.
            marks: what to put around the row's token.
        """
        ids, own = self._around(row, before, after)
        reader = getattr(tokens, "tokens", tokens)
        if not isinstance(reader, Tokenization):
            reader = Tokenization(reader, n_vocab=len(reader))
        pieces = reader.to_str_tokens(ids)
        pieces[own] = f"{marks[0]}{pieces[own]}{marks[1]}"
        return "".join(pieces)

    def batches(
        self,
        size: int,
        *,
        seed: int = 0,
        shuffle: Shuffle = "rows",
        epochs: int | None = 1,
        sites: Sites = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        prefetch: int = 2,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
        block: int | None = None,
    ) -> Batches:
        """Rows in batches, read ahead; see :mod:`interp.store.batches` for the three orders.

        Args:
            size: rows of a batch. The last one of an epoch may have fewer.
            seed: of the shuffle; the same seed gives the same batches.
            shuffle: ``"rows"``, ``"blocks"`` or None.
            epochs: how often each row comes; None: without end, in a new order each time.
            sites: some of the store's sites; None: those that it was opened with.
            dtype: of the activations; None: as stored.
            device: where to put the rows; None: the CPU.
            prefetch: how many batches a thread reads ahead; 0: none.
            drop_last: leave out the last batch of an epoch if it is short.
            part: (rank, world): only this of ``world`` equal parts of each batch. The parts of all
                ranks, one after another, are the batch; of a short last one a part may be empty
                (``drop_last`` leaves it out).
            block: rows that stay together under ``"blocks"``; None: 128, less for small batches.

        Raises:
            StoreError: an option is out of range, or the store has not one batch, or lacks a site.
        """
        from interp.store.batches import Batches, Order, Reading

        order = Order.of(
            len(self), size, seed=seed, shuffle=shuffle, block=block, drop_last=drop_last
        )
        names = self._names(sites)
        reading = Reading(self._maps, order, names, *kind_and_place(dtype, device), part)
        return Batches(reading, epochs=epochs, prefetch=prefetch, identity=self._maps.identity)

    def stats(self, sites: Sites = None, **options: Any) -> Statistics:  # fmt: skip
        """Means, variances, norms and more; see :func:`interp.store.statistics.stats`."""
        from interp.store.statistics import stats

        return stats(self, sites, **options)

    def to_datasets(self, path: str | Path | None = None, **options: Any) -> Any:
        """A data set in SAELens's format; see :func:`interp.store.arrow.to_datasets`."""
        from interp.store.arrow import to_datasets

        return to_datasets(self, path, **options)

    @classmethod
    def from_datasets(cls, dataset: Any, out: str | Path, **options: Any) -> ActivationStore:
        """A store from SAELens's format; see :func:`interp.store.arrow_reading.from_datasets`."""
        from interp.store.arrow_reading import from_datasets

        return from_datasets(dataset, out, **options)

    def verify(self) -> Any:
        """Compare every file with its checksum; see :func:`interp.store.verify.verify`."""
        from interp.store.verify import verify

        return verify(self.folder)

    def info(self) -> dict[str, Any]:
        """What a person wants to know, by name; JSON values."""
        made = self.manifest
        return {
            "folder": str(self.folder),
            "complete": self.complete,
            "model": made.model,
            "weights": made.weights_hash,
            "sites": {site: list(shape) for site, shape in made.sites.items()},
            "pairs": [list(pair) for pair in made.pairs],
            "dtype": made.dtype,
            "rows": len(self),
            "rows asked for": made.tokens,
            "shards": len(self._maps.records),
            "bytes": self.nbytes,
            "documents": self.n_documents,
            "tokens forwarded": sum(record.forwarded for record in self._maps.records),
            "corpus": dict(made.corpus),
            "layout": dict(made.layout),
            "seed": made.seed,
            "versions": dict(made.versions),
            "id": self._identity,
        }

    def _names(self, sites: Sites) -> tuple[str, ...]:
        return tuple(self.sites) if sites is None else site_names(self.folder, self.sites, sites)

    def _read(self, index: Int[ndarray, " row"], sites: Sites) -> Rows:
        found = self._maps.gather(index, (*self._names(sites), *COLUMNS))
        columns = {name: found.pop(name) for name in COLUMNS}
        return Rows(found, **columns)

    def _around(self, row: int, before: int, after: int) -> tuple[Int[Tensor, " token"], int]:
        """The ids around a row, and which of them is its own."""
        if any(
            isinstance(n, bool) or not isinstance(n, Integral) or n < 0 for n in (before, after)
        ):
            raise StoreError(f"before={before!r}, after={after!r}; expected numbers of tokens.")
        index = row_numbers(row, len(self))
        if len(index) != 1:
            raise StoreError(f"{len(index)} rows; expected the number of one.")
        own = self._maps.gather(index, ("document", "position"))
        document, place = int(own["document"][0]), int(own["position"][0])
        window = max(0, place - before), min(place + after, 2**31 - 1)
        near = self._lookup.positions(document, *window) if place >= 0 else np.empty(0, np.int64)
        earlier, later = (
            self._lookup.rows(np.full(len(side), document), side)
            for side in (near[near < place], near[near > place])
        )
        rows = np.concatenate([earlier, index, later])
        return self._maps.gather(rows, ("tokens",))["tokens"], len(earlier)

    def _absent(self, document: int, position: int) -> str:
        """Why the store may not have a token."""
        what = f"document {document}, position {position} is not in the store {str(self.folder)!r}"
        if document < 0 or position < 0:
            return f"{what}: both are counted from 0."
        have = self._lookup.positions(document)
        if not have.size:
            part = "" if self.complete else " so far (it is unfinished)"
            return (
                f"{what}: it has no token of that document. Its rows reach document "
                f"{self.n_documents - 1}{part}; texts without kept tokens have none."
            )
        special = "" if self.manifest.layout.get("special") else (
            " Special tokens (a BOS, say) are not kept unless asked for."
        )  # fmt: skip
        return f"{what}: of that document it has {spans(have)}.{special}"


def _check(folder: Path, manifest: Manifest, model: Any, corpus: Any) -> None:
    """The store was made with this model, from this data."""
    wanted = manifest
    if model is not None:
        if not hasattr(model, "weights_hash"):
            raise StoreError(f"model={model!r}; expected a model, as interp.load returns it.")
        wanted = replace(wanted, model=model.name, weights_hash=model.weights_hash)
    if corpus is not None:
        wanted = replace(wanted, corpus=read(corpus).identity)
    if differences := manifest.differences(wanted):
        raise StoreError(
            f"{str(folder)!r} is another store: {'; '.join(differences)}. Give what it was made "
            "from, or harvest anew into another folder."
        )
