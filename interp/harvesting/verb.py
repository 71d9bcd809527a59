"""``interp.harvest``: the activations of a corpus, in a store that survives anything.

1. Settle the plan: how texts are packed, how many rows run at once, how many batches make a shard.
2. Say what it will take; refuse if the disk cannot hold it.
3. Compute the shards that are missing, one on its way to disk while the next is run.
4. When all are there, close the manifest.

A shard is a function of the plan and the corpus alone, so a harvest that was killed goes on with the
same call, several processes share the work under torchrun, and the finished store has the same bytes
however it came about (on the same machine and versions).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interp.corpora.corpus import Corpus
from interp.corpora.forecast import forecast as counted
from interp.corpora.packing import pack
from interp.corpora.reading import read
from interp.errors import CorpusError, StoreError
from interp.harvesting.forecast import Forecast, check_disk, speed, working_memory
from interp.harvesting.plan import Asked, Dtype, PackingName, Plan, settle
from interp.harvesting.ranks import Ranks
from interp.harvesting.wanted import SitesAsked, Wanted, wanted
from interp.harvesting.work import Work, nothing_to_keep
from interp.models.model import Model
from interp.progress import Bar, announce
from interp.store.files import listed, remove
from interp.store.manifest import MANIFEST, numbered
from interp.store.store import ActivationStore
from interp.store.writer import Writer

__all__ = ["Tally", "harvest", "harvested"]


@dataclass(frozen=True)
class Tally:
    """What one harvest ran.

    Attributes:
        forwarded: tokens that each rank ran through the model.
        rows: rows that each rank stored.
        seconds: wall-clock seconds of this rank.
    """

    forwarded: tuple[int, ...]
    rows: tuple[int, ...]
    seconds: float

    def __str__(self) -> str:
        total = sum(self.forwarded)
        each = "".join(
            f"; rank {rank} ran {n:,}"
            for rank, n in enumerate(self.forwarded)
            if len(self.forwarded) > 1
        )
        rate = total / self.seconds if self.seconds else 0.0
        return (
            f"{sum(self.rows):,} rows from {total:,} tokens run, {self.seconds:.1f} s, "
            f"{rate:,.0f} tokens/s{each}"
        )


def harvest(
    model: Model,
    corpus: Any,
    sites: SitesAsked,
    out: str | Path,
    *,
    dtype: Dtype = "bfloat16",
    context: int = 128,
    tokens: int | None = None,
    batch: int | Literal["auto"] = "auto",
    seed: int = 0,
    resume: bool = True,
    packing: PackingName = "auto",
    bos: bool | None = None,
    special: bool = False,
    field: str = "text",
    shard_mib: float | None = None,
    progress: bool | None = None,
) -> ActivationStore:
    """Run a model over a corpus and store the activations of every token at some sites.

    The same call goes on where an earlier one was stopped; a finished store is opened. Under
    ``torchrun`` the ranks share the work. What it will take is said on standard error before it starts.

    >>> store = interp.harvest(model, "demo", ["L2.mlp"], "acts", tokens=100_000)   # doctest: +SKIP

    Args:
        corpus: ``"demo"``, files or folders of text, JSONL or token ids, texts, an iterable, a
            Hugging Face dataset, token ids: see :func:`interp.corpora.read`.
        sites: ``"L*.resid_post"``, several, or pairs: ``"L2.mlp"`` is ``mlp.input → mlp_out``.
        out: the folder of the store.
        dtype: of the stored values; bfloat16 is the cast of what the model computed.
        context: longest stretch of text that a token can look back on, BOS included. Longer
            documents are cut, and each piece begins with a BOS of its own.
        tokens: rows to store; None for all the corpus has.
        batch: rows of ``context`` tokens at a time; ``"auto"`` takes as many as fit and help.
        seed: of a corpus that is generated (``"demo"``); others are read in their order.
        resume: False refuses a folder that already holds a store.
        packing: how texts share rows. ``"isolated"``: each sees itself alone, exactly as in a row of
            its own; ``"padded"``: a row of its own for each piece; ``"joined"``: one after another,
            later texts see earlier ones (the usual way to train, and SAELens's). ``"auto"``:
            isolated where the model is shown to honour it, else padded, which has the same values.
        bos: None puts a BOS before each piece if the tokenizer has one; token ids are taken as
            they are.
        special: also store special tokens (BOS, EOS, padding), whose activations are unlike others'.
        field: which field of JSON records and datasets holds the text.
        shard_mib: size of a shard, about; 64 unless told. A kill loses at most the one
            that is being run and the one on its way to disk, in each rank.
        progress: None shows a bar to a person, True always; False is silent.

    Raises:
        StoreError: the folder holds another store or other files, is being written, or cannot
            hold it; a full disk (what is finished stays).
        CorpusError: the corpus cannot be read, is empty, or is not the one that was begun with.
        SiteError: a site that does not exist or has no value for each token.
        BudgetError: a single row does not fit in memory.
    """
    asked = Asked(dtype, context, tokens, batch, seed, packing, bos, special, shard_mib)
    text = read(corpus, field=field, seed=asked.seed)
    store, _ = harvested(
        model, text, wanted(model, sites), asked, Path(out), resume=resume, progress=progress
    )
    return store


def harvested(
    model: Model,
    corpus: Corpus,
    sites: Wanted,
    asked: Asked,
    out: Path,
    *,
    resume: bool,
    progress: bool | None,
) -> tuple[ActivationStore, Tally]:
    """The store, and what this call ran for it."""
    start, ranks = time.perf_counter(), Ranks.current()
    with ExitStack() as stack:
        plan, writer = _begun(stack, ranks, model, corpus, sites, asked, out, resume)
        if writer.manifest.complete:
            return _finished(out, model, corpus, plan, writer), Tally((0,), (0,), 0.0)
        with _taken_back(writer, ranks.lead):
            told = _forecast(model, corpus, sites, plan, writer, out, ranks)
            if ranks.lead and progress is not False:
                _say(model, corpus, sites, plan, writer, told)
            ranks.together()  # all have read what is done before anybody adds to it
        work = Work(model, sites, plan, writer, ranks)
        show = progress if ranks.lead else False
        own = None if told.rows is None else -(-told.rows // ranks.world)
        bar = Bar(total=own, what="harvest", show=show)
        with _taken_back(writer, ranks.world == 1), bar:
            n_shards = work.run(corpus, bar)
        forwarded, rows = ranks.gather(work.forwarded), ranks.gather(work.rows)
        if ranks.lead:
            writer.finish(n_shards)
        ranks.together()
    tally = Tally(tuple(forwarded), tuple(rows), time.perf_counter() - start)
    if ranks.lead and progress is not False:
        announce(str(tally))
    return ActivationStore.open(out), tally


def _begun(
    stack: ExitStack, ranks: Ranks, model: Model, corpus: Corpus, sites: Wanted, asked: Asked, out: Path,
    resume: bool,
) -> tuple[Plan, Writer]:  # fmt: skip
    """The lead settles the plan, takes the lock and writes the manifest; the others join, as it has it."""
    if not ranks.lead:
        ranks.follow()
        plan, writer = (
            settle(model, corpus, sites, asked, out),
            stack.enter_context(Writer.join(out)),
        )
        if told := writer.manifest.differences(plan.manifest):
            raise StoreError(f"rank {ranks.rank} was asked for another harvest: {'; '.join(told)}.")
        return plan, writer
    try:
        plan = settle(model, corpus, sites, asked, out)
        writer = stack.enter_context(Writer.open(out, plan.manifest, resume=resume))
    except BaseException:
        ranks.follow(failed=True)
        raise
    ranks.follow()
    return plan, writer


@contextmanager
def _taken_back(writer: Writer, may: bool) -> Iterator[None]:
    """A failure before the first shard leaves no plan behind, which would bind the next call to it."""
    try:
        yield
    except BaseException:
        with suppress(StoreError):
            if may and not any(
                numbered(listed(writer.folder), e) for e in (".safetensors", ".json")
            ):
                remove([writer.folder / MANIFEST])
        raise


def _finished(
    out: Path, model: Model, corpus: Corpus, plan: Plan, writer: Writer
) -> ActivationStore:
    """A store that was finished before, once its corpus is seen to be this one.

    Raises:
        CorpusError: it is another, or a longer one.
    """
    manifest = writer.manifest
    end, rows = manifest.shards[-1].end, sum(record.rows for record in manifest.shards)
    more = next(pack(corpus, model.tokens, plan.how, start=end), None)  # reads all before it too
    if more is not None and (manifest.tokens is None or rows < manifest.tokens):
        raise CorpusError(
            f"{corpus.name} goes on after document {end.document - 1}, with which the finished store "
            f"in {str(out)!r} ends: harvest from the same corpus, or to another folder."
        )
    return ActivationStore.open(out)


def _forecast(
    model: Model, corpus: Corpus, sites: Wanted, plan: Plan, writer: Writer, out: Path, ranks: Ranks
) -> Forecast:
    """What is still to be done; what the disk cannot hold, or what holds nothing, is refused."""
    size = counted(corpus, model.tokens, plan.how)
    if size.kept == 0 and size.exact:
        raise nothing_to_keep(corpus)
    stored = sum(record.rows for record in writer.done.values())
    ran = sum(record.forwarded for record in writer.done.values())
    row_bytes = plan.manifest.row_bytes
    shard = plan.per_shard * plan.how.rows * plan.how.context * row_bytes
    limit = plan.manifest.tokens
    rows = forwarded = None if limit is None else max(0, limit - stored)
    if size.kept is not None and size.forwarded is not None:
        whole = size.kept if limit is None else min(size.kept, limit)
        rows = max(0, whole - stored)
        forwarded = max(0, round(size.forwarded * whole / max(size.kept, 1)) - ran)
    return Forecast(
        rows=rows,
        forwarded=forwarded,
        exact=size.exact,
        row_bytes=row_bytes,
        memory=working_memory(model, sites, plan.how, shard),
        tokens_per_s=speed(model, sites, plan.how) * size.filled * ranks.world,
        free=check_disk(out, None if rows is None else rows * row_bytes, shard=shard),
        ranks=ranks.world,
    )


def _say(
    model: Model, corpus: Corpus, sites: Wanted, plan: Plan, writer: Writer, told: Forecast
) -> None:
    """What it will take, before it starts."""
    on = f", going on after {len(writer.done)} shards" if writer.done else ""
    announce(f"harvest {', '.join(sites.named)} of {model.name!r} on {corpus.name}{on}: {told}")
    for note in plan.notes:
        announce(f"note: {note}")
