"""Which batches make up which shard: a function of the plan and the corpus alone.

A corpus is packed in one fixed order; every ``per_shard`` batches are a shard, and the last shard ends
where the corpus does or where enough tokens are kept. So a shard can be computed by whoever is at hand,
now or after a crash, and comes out the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice

from interp.corpora.corpus import Corpus
from interp.corpora.packed import Cursor, PackedBatch
from interp.corpora.packing import Packing, pack
from interp.errors import CorpusError
from interp.store.manifest import ShardRecord
from interp.tokens import Tokenization

__all__ = ["Shard", "limited", "shards"]


@dataclass(frozen=True)
class Shard:
    """The batches of one shard, still to be run.

    Attributes:
        index: its number.
        batches: what to run, in order.
        before: rows in the shards before it.
    """

    index: int
    batches: tuple[PackedBatch, ...]
    before: int

    @property
    def rows(self) -> int:
        """Tokens whose activations it will hold."""
        return sum(batch.n_kept for batch in self.batches)

    @property
    def forwarded(self) -> int:
        """Tokens to be run for it."""
        return sum(int(batch.tokens.n_real.sum()) for batch in self.batches)

    @property
    def end(self) -> Cursor:
        """How far the corpus is packed with it."""
        return self.batches[-1].end


def shards(
    corpus: Corpus,
    tokens: Tokenization,
    how: Packing,
    *,
    per_shard: int,
    limit: int | None,
    done: Mapping[int, ShardRecord],
) -> Iterator[Shard]:
    """All shards from the first that is missing on, those that are done included.

    Args:
        limit: rows in the whole store; None for all the corpus has.
        done: what is finished. The documents behind it are read, to see that the corpus is the one
            it was, but not tokenised.

    Raises:
        CorpusError: the corpus is not the one that the finished shards were made from.
    """
    first = next(i for i in range(len(done) + 1) if i not in done)
    before = sum(done[i].rows for i in range(first))
    start = done[first - 1].end if first else Cursor()
    batches = limited(pack(corpus, tokens, how, start=start), limit, before)
    for index in count(first):
        part = tuple(islice(batches, per_shard))
        if not part:
            return
        shard = Shard(index, part, before)
        _check(shard, done.get(index))
        yield shard
        before += shard.rows


def limited(
    batches: Iterator[PackedBatch], limit: int | None, before: int = 0
) -> Iterator[PackedBatch]:
    """Batches until ``limit`` tokens are kept; the last keeps only what is still asked for."""
    for batch in batches:
        if limit is not None and before + batch.n_kept >= limit:
            if before < limit:
                yield _cut(batch, limit - before)
            return
        before += batch.n_kept
        yield batch


def _cut(batch: PackedBatch, most: int) -> PackedBatch:
    kept = batch.keep.flatten()
    kept = kept & (kept.cumsum(0) <= most)
    return replace(batch, keep=kept.view(batch.keep.shape))


def _check(shard: Shard, record: ShardRecord | None) -> None:
    if record is not None and (record.end, record.rows) != (shard.end, shard.rows):
        raise CorpusError(
            f"shard {shard.index} was made from other documents than this corpus has up to document "
            f"{shard.end.document}: harvest from the same corpus, or to another folder."
        )
