"""``interp.stream``: activations straight from the model, for those who have no room to store them.

The same rows as a harvest's, through the same kind of iterator, but each epoch runs the model anew and
shuffling reaches only as far as a bounded buffer (:mod:`reservoir`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch.utils.data import IterableDataset, get_worker_info

from interp.corpora.corpus import Corpus
from interp.corpora.packed import Cursor, PackedBatch
from interp.corpora.packing import Packing, pack
from interp.corpora.reading import read
from interp.errors import BudgetError, RunError
from interp.harvesting.capture import Landing, capture, origins
from interp.harvesting.plan import DTYPES, Asked, Dtype, PackingName, settled_packing, whole
from interp.harvesting.reservoir import Reservoir
from interp.harvesting.shards import limited
from interp.harvesting.wanted import SitesAsked, Wanted, wanted
from interp.harvesting.work import nothing_to_keep
from interp.models.model import Model
from interp.runs.memory import as_text, available
from interp.store.rows import Rows

__all__ = ["ActivationStream", "StreamBatches", "stream"]


@dataclass(frozen=True, eq=False, repr=False)
class ActivationStream:
    """Activations of a corpus, computed as they are asked for. Made by :func:`interp.stream`.

    Attributes:
        model: the model that is run.
        corpus: what it reads.
        asked: the sites.
        how: how texts are packed into rows.
        dtype: of the activations.
        buffer: rows that are shuffled among each other.
        tokens: rows in an epoch; None for all the corpus has.
    """

    model: Model
    corpus: Corpus
    asked: Wanted
    how: Packing
    dtype: torch.dtype
    buffer: int
    tokens: int | None

    def __repr__(self) -> str:
        return (
            f"ActivationStream({', '.join(self.sites)} of {self.model.name!r} on {self.corpus.name}, "
            f"buffer of {self.buffer:,} rows)"
        )

    @property
    def sites(self) -> dict[str, tuple[int, ...]]:
        """For each site the shape of one token's activation."""
        return self.asked.named

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return self.asked.pairs

    def batches(
        self,
        size: int,
        *,
        seed: int = 0,
        shuffle: Literal["rows"] | None = "rows",
        epochs: int | None = 1,
        drop_last: bool = False,
    ) -> StreamBatches:
        """Batches of ``size`` rows; the model runs while they are asked for.

        Args:
            seed: of the shuffling. The model is deterministic, so the same seed gives the same rows.
            shuffle: ``"rows"`` draws them at random from the buffer; None gives them in order.
            epochs: times through the corpus; None for no end.
            drop_last: leave out a last batch that is smaller than the others.

        Raises:
            RunError: a size below 1, or above the buffer's.
            BudgetError: the buffer does not fit in memory.
        """
        return StreamBatches(self, size, seed, shuffle, epochs, drop_last)


class StreamBatches(IterableDataset[Rows], Iterator[Rows]):
    """One pass, or several, over a stream; remembers exactly where it is.

    :meth:`state_dict` holds the buffer too, since what is in it depends on all that was drawn before.
    """

    def __init__(
        self, source: ActivationStream, size: int, seed: int, shuffle: str | None,
        epochs: int | None, drop_last: bool,
    ) -> None:  # fmt: skip
        if shuffle not in ("rows", None):
            raise RunError(f"shuffle={shuffle!r}; expected 'rows' or None of a stream.")
        size, seed = whole("size", size), whole("seed", seed)
        epochs = None if epochs is None else whole("epochs", epochs, (None,))
        if shuffle and size > source.buffer:
            raise RunError(
                f"batches of {size} rows from a buffer of {source.buffer}; expected 1 to as many as "
                "the buffer holds: give stream(..., buffer=) more room."
            )
        self.source, self.size, self.shuffle = source, size, shuffle
        self.epochs, self.drop_last, self.seed = epochs, drop_last, seed
        self._epoch, self._taken, self._ended = 0, 0, False
        self._draw = torch.Generator().manual_seed(seed)
        widest = source.how.rows * source.how.context
        room = (source.buffer if shuffle else size) + widest
        self._held = Reservoir(
            source.sites, _checked(source, room), source.dtype, device=source.model.device
        )
        self._landing = Landing.of(source.sites, widest, source.dtype, device=source.model.device)
        self._cursor, self._kept = Cursor(), 0
        self._coming: Iterator[PackedBatch] | None = None

    def __iter__(self) -> StreamBatches:
        if get_worker_info() is not None:
            raise RunError(
                "a stream runs the model in this process: use DataLoader(..., num_workers=0), or "
                "harvest to a store, which workers can read."
            )
        if self._ended:  # a second ``for`` would find nothing, and say nothing
            raise RunError(
                "these batches have been read to their end: make new ones with stream.batches(...), or "
                "ask for several epochs (epochs=)."
            )
        return self

    def __next__(self) -> Rows:
        while self.epochs is None or self._epoch < self.epochs:
            self._fill()
            n = min(self.size, self._held.n)
            if n == self.size or (n and not self.drop_last):
                self._taken += 1
                return self._held.draw(n, self._draw) if self.shuffle else self._held.first(n)
            if self._kept == 0:
                raise nothing_to_keep(self.source.corpus)
            self._held.n = 0
            self._epoch, self._cursor, self._kept, self._coming = self._epoch + 1, Cursor(), 0, None
        self._ended = True
        raise StopIteration

    def _fill(self) -> None:
        """Run the model until the buffer is full or the corpus at its end."""
        source = self.source
        if self._coming is None:
            packed = pack(source.corpus, source.model.tokens, source.how, start=self._cursor)
            self._coming = limited(packed, source.tokens, self._kept)
        wanted = source.buffer if self.shuffle else self.size
        try:
            while self._held.n < wanted and (batch := next(self._coming, None)) is not None:
                n = capture(source.model, batch, source.asked.sites, self._landing, start=0)
                tensors = {site: room[:n] for site, room in self._landing.tensors.items()}
                self._landing.wait()
                self._held.add(Rows(tensors, **origins([batch])))
                self._cursor, self._kept = batch.end, self._kept + n
        except BaseException:  # the batch in hand was not stored: packed anew by who asks again
            self._coming = None
            raise

    # -- where it is -------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where this iterator is: ``"position"`` (JSON) and ``"tensors"`` (the buffer)."""
        held = self._held.held
        columns = {c: getattr(held, c).clone() for c in ("tokens", "document", "position")}
        tensors = {f"site {site}": x.clone() for site, x in held.tensors.items()}
        position = {
            **self._settings(), "epoch": self._epoch, "taken": self._taken,
            "cursor": asdict(self._cursor), "kept": self._kept,
        }  # fmt: skip
        return {
            "position": position,
            "tensors": {**tensors, **columns, "generator": self._draw.get_state()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            RunError: it was taken from batches of another stream.
        """
        position, tensors = state["position"], state["tensors"]
        for name, value in self._settings().items():
            if position.get(name) != value:
                raise RunError(
                    f"this state is of batches with {name} {position.get(name)!r}, and these have "
                    f"{value!r}: make the iterator as it was."
                )
        self._epoch, self._taken = position["epoch"], position["taken"]
        self._cursor, self._kept = Cursor(**position["cursor"]), position["kept"]
        self._coming, self._ended = None, False
        self._draw.set_state(tensors["generator"])
        self._held.n = 0
        sites = {site: tensors[f"site {site}"] for site in self.source.sites}
        self._held.add(Rows(sites, tensors["tokens"], tensors["document"], tensors["position"]))

    def _settings(self) -> dict[str, Any]:
        """All that the rows to come depend on, beside where the iterator is."""
        source = self.source
        return {
            "weights_hash": source.model.weights_hash, "sites": list(source.sites),
            "corpus": dict(source.corpus.identity), "packing": asdict(source.how),
            "dtype": str(source.dtype).removeprefix("torch."), "buffer": source.buffer,
            "tokens": source.tokens, "size": self.size, "seed": self.seed,
            "shuffle": self.shuffle, "epochs": self.epochs, "drop_last": self.drop_last,
        }  # fmt: skip


def stream(
    model: Model,
    corpus: Any,
    sites: SitesAsked,
    *,
    dtype: Dtype | None = None,
    context: int = 128,
    tokens: int | None = None,
    batch: int | Literal["auto"] = "auto",
    buffer: int = 65536,
    seed: int = 0,
    packing: PackingName = "auto",
    bos: bool | None = None,
    special: bool = False,
    field: str = "text",
) -> ActivationStream:
    """Activations of a corpus without a store: the model runs as batches are asked for.

    >>> rows = next(interp.stream(model, "demo", "L2.mlp").batches(4096))       # doctest: +SKIP
    >>> rows["L2.mlp.input"].shape                                             # doctest: +SKIP
    torch.Size([4096, 192])

    Args:
        dtype: of the activations; None for the model's own.
        buffer: rows that are shuffled among each other; it takes that many rows of memory on the
            model's device.
        tokens: rows in an epoch; None for all the corpus has.

    The other arguments are those of :func:`interp.harvest`. For several epochs the corpus must be one
    that can be read again (a list, files, a callable that opens it).

    Raises:
        SiteError: a site that does not exist or has no value for each token.
        CorpusError: the corpus cannot be read.
    """
    kind: Any = dtype or str(model.dtype).removeprefix("torch.")
    if dtype is None and kind not in DTYPES:
        raise RunError(
            f"the model computes in {kind}: say dtype='float32' for activations cast to it."
        )
    asked = Asked(kind, context, tokens, batch, seed, packing, bos, special, None)
    buffer = whole("buffer", buffer)
    places = wanted(model, sites)
    how, _ = settled_packing(model, places, asked)
    text = read(corpus, field=field, seed=asked.seed)
    return ActivationStream(model, text, places, how, DTYPES[kind], buffer, asked.tokens)


def _checked(source: ActivationStream, rows: int) -> int:
    need = rows * source.asked.width * source.dtype.itemsize
    free = available(source.model.device)
    if need > free:
        raise BudgetError(
            f"a buffer of {source.buffer:,} rows takes {as_text(need)} here, and {as_text(free)} are "
            "free: give a smaller buffer, fewer sites, or dtype='bfloat16'."
        )
    return rows
