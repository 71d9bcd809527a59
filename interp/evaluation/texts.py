"""The texts of an evaluation: those that are scored, and others for what must be known before.

Means to ablate with, and the thresholds of random dictionaries, come from texts that are not scored:
every fifth document is set aside, and more behind the last scored one if those are few.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Int
from torch import Tensor

from interp.corpora.corpus import Corpus, Document
from interp.corpora.packed import PackedBatch
from interp.corpora.packing import Packing, pack
from interp.errors import CorpusError
from interp.models.model import Model

__all__ = ["Texts"]

_ONE_IN, _LEAST = 5, 16  # documents set aside: one in so many, and at least so many


@dataclass(frozen=True, eq=False)
class Texts:
    """Packed batches of both parts of a corpus.

    Attributes:
        scored: what the metrics are of.
        aside: what means and thresholds are of.
        documents: numbers of the scored documents, ascending.
        hash: sha256 over the scored tokens.
    """

    scored: tuple[PackedBatch, ...]
    aside: tuple[PackedBatch, ...]
    documents: Int[Tensor, " text"]
    hash: str

    @classmethod
    def of(cls, corpus: Corpus, model: Model, how: Packing, tokens: int | None) -> Texts:
        """Read a corpus up to ``tokens`` scored tokens, a quarter as many beside.

        Raises:
            CorpusError: fewer than two documents, or none with a token to score.
        """
        documents, aside = corpus.documents(), []

        def scored() -> Iterator[Document]:
            for number, document in enumerate(documents):
                if number % _ONE_IN == 1:
                    aside.append(document)
                else:
                    yield document

        part = Corpus(corpus.name, corpus.identity, None, scored)
        batches = tuple(_limited(pack(part, model.tokens, how), tokens))
        n_scored = sum(batch.n_kept for batch in batches)
        if len(aside) < _LEAST:
            aside += islice(documents, _LEAST - len(aside))
        if not aside or not n_scored:
            raise CorpusError(
                f"{corpus.name} has {n_scored} tokens to score and {len(aside)} documents to take "
                "means from; expected at least two documents with text, since both are kept apart."
            )
        rest = Corpus(corpus.name, corpus.identity, None, lambda: iter(aside))
        others = tuple(_limited(pack(rest, model.tokens, how), max(1024, n_scored // 4)))
        if not sum(batch.n_kept for batch in others):
            raise CorpusError(
                f"the documents of {corpus.name} that are set aside for means have no token but "
                "special ones: give more texts."
            )
        numbers = torch.cat([batch.document[batch.keep] for batch in batches]).unique()
        return cls(batches, others, numbers, _hash(batches))

    @property
    def n_tokens(self) -> int:
        """Scored tokens."""
        return sum(batch.n_kept for batch in self.scored)

    def numbers(self, batch: PackedBatch) -> Int[Tensor, " kept"]:
        """For each kept token of a scored batch, its document's place in :attr:`documents`."""
        return torch.searchsorted(self.documents, batch.document[batch.keep])


def _limited(batches: Iterator[PackedBatch], limit: int | None) -> Iterator[PackedBatch]:
    """Batches up to so many kept tokens, in the order of the documents however they were packed."""
    left = limit
    for batch in batches:
        if left is not None and batch.n_kept >= left:
            if left:
                yield _cut(batch, left)
            return
        left = None if left is None else left - batch.n_kept
        yield batch


def _cut(batch: PackedBatch, most: int) -> PackedBatch:
    """The first so many kept tokens, and the rows that they stand in."""
    document, position = batch.document[batch.keep], batch.position[batch.keep]
    order = (document * (position.max() + 2) + position).argsort()
    kept = torch.zeros_like(document, dtype=torch.bool)
    kept[order[:most]] = True
    keep = batch.keep.clone()
    keep[batch.keep] = kept
    used = keep.any(1).nonzero().flatten()
    document, position, keep = (x[used] for x in (batch.document, batch.position, keep))
    return PackedBatch(batch.tokens.rows(used), document, position, keep, batch.end)


def _hash(batches: tuple[PackedBatch, ...]) -> str:
    """The same however the texts were packed into rows."""
    columns = [
        torch.cat([part(batch)[batch.keep] for batch in batches])
        for part in (lambda b: b.document, lambda b: b.position, lambda b: b.tokens.ids)
    ]
    place = columns[0] * (int(columns[1].max()) + 1) + columns[1]
    rows = torch.stack(columns)[:, place.argsort()]
    return hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()
