"""One rank's share of the shards: the next is run while the last is on its way to disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from interp.corpora.corpus import Corpus
from interp.errors import BudgetError, CorpusError, warn
from interp.harvesting.capture import Landing, capture, origins
from interp.harvesting.plan import DTYPES, Plan
from interp.harvesting.ranks import Ranks
from interp.harvesting.shards import Shard, shards
from interp.harvesting.wanted import Wanted
from interp.models.model import Model
from interp.progress import Bar
from interp.store.manifest import ShardRecord
from interp.store.rows import Rows
from interp.store.writer import Writer

__all__ = ["Work", "nothing_to_keep"]


@dataclass
class Work:
    """What a rank does for a harvest, and how much of it is done.

    Attributes:
        forwarded: tokens that this rank has run.
        rows: rows that it has stored.
    """

    model: Model
    sites: Wanted
    plan: Plan
    writer: Writer
    ranks: Ranks
    forwarded: int = 0
    rows: int = 0
    _began: float = field(default_factory=time.perf_counter)
    _landings: dict[bool, Landing] = field(default_factory=dict)

    def run(self, corpus: Corpus, bar: Bar) -> int:
        """Compute what is missing and falls to this rank.

        Returns:
            How many shards there are in all.

        Raises:
            CorpusError: the corpus holds nothing to keep, or is not the one it was.
            StoreError: the disk is full; what is finished stays.
        """
        done = dict(self.writer.done)
        n_shards, missing, turn = len(done), 0, False
        n_rows = sum(record.rows for record in done.values())
        writing: Future[ShardRecord] | None = None
        try:
            with ThreadPoolExecutor(1, "shard to disk") as disk:
                for shard in self._all(corpus, done):
                    n_shards = max(n_shards, shard.index + 1)
                    n_rows += shard.rows
                    if shard.index in done:
                        continue
                    missing += 1
                    if not self.ranks.mine(missing - 1):
                        continue
                    turn = not turn
                    rows = self._captured(shard, self._landing(turn, shard.rows), bar)
                    if writing is not None:
                        writing.result()
                    writing = disk.submit(self._write, shard, rows)
                if writing is not None:
                    writing.result()
        except KeyboardInterrupt:
            n = len(self.writer.done)
            warn(f"interrupted with {n} shards finished: the same call goes on from there.")
            raise
        if n_rows == 0:
            raise nothing_to_keep(corpus)
        return n_shards

    def _all(self, corpus: Corpus, done: Mapping[int, ShardRecord]) -> Iterator[Shard]:
        return shards(
            corpus,
            self.model.tokens,
            self.plan.how,
            per_shard=self.plan.per_shard,
            limit=self.plan.manifest.tokens,
            done=done,
        )

    def _landing(self, turn: bool, rows: int) -> Landing:
        """Room for a shard; two take turns, one being filled and one being written."""
        if turn not in self._landings or self._landings[turn].room < rows:
            self._landings[turn] = Landing.of(
                self.sites.named,
                rows,
                DTYPES[self.plan.manifest.dtype],
                pinned=self.model.device.type == "cuda",
            )
        return self._landings[turn]

    def _captured(self, shard: Shard, into: Landing, bar: Bar) -> Rows:
        """The rows of a shard; their activations are views of ``into``."""
        start = 0
        for batch in shard.batches:
            try:
                start += capture(self.model, batch, self.sites.sites, into, start=start)
            except torch.OutOfMemoryError as error:
                raise BudgetError(
                    f"out of memory in shard {shard.index} with the {self.plan.how.rows} rows a batch "
                    f"that this store is made with ({len(self.writer.done)} shards are finished): free "
                    "memory and run the same call again, or begin a new store with a smaller batch."
                ) from error
            self.forwarded += int(batch.tokens.n_real.sum())
            rate = self.ranks.world * self.forwarded / (time.perf_counter() - self._began)
            bar.advance(batch.n_kept, what=f"harvest {rate:,.0f} tokens/s")
        into.wait()
        tensors = {site: room[:start] for site, room in into.tensors.items()}
        return Rows(tensors, **origins(shard.batches))

    def _write(self, shard: Shard, rows: Rows) -> ShardRecord:
        record = self.writer.write(shard.index, rows, end=shard.end, forwarded=shard.forwarded)
        self.rows += len(rows)
        return record


def nothing_to_keep(corpus: Corpus) -> CorpusError:
    return CorpusError(
        f"{corpus.name} has no token to keep: expected text, or token ids that are not all special "
        "(special=True keeps those too)."
    )
