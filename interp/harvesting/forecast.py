"""What a harvest will take, said before it starts: tokens, disk, memory and time."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from interp.corpora.packing import Packing
from interp.errors import BudgetError, StoreError
from interp.harvesting.wanted import Wanted
from interp.models.model import Model
from interp.runs.execute import execute
from interp.runs.memory import as_text, available, needs
from interp.token_batch import TokenBatch

__all__ = ["Forecast", "check_disk", "rows_that_fit", "speed", "that_runs", "working_memory"]

#: Tokens in a batch where the user leaves it to us: beyond, a forward pass gets no faster for each.
TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768, "mps": 8192}


@dataclass(frozen=True)
class Forecast:
    """What a harvest is expected to take.

    Attributes:
        rows: rows still to be stored; None if the corpus does not say how large it is.
        forwarded: tokens still to be run.
        exact: whether they were counted, or estimated from a sample.
        row_bytes: bytes of one row on disk.
        memory: bytes of a batch at work and of the shards on their way to disk, in each rank.
        tokens_per_s: measured on this model with this batch, all ranks together; padding takes its
            share of the time and does not count.
        free: bytes free on the disk.
        ranks: how many share the work.
    """

    rows: int | None
    forwarded: int | None
    exact: bool
    row_bytes: int
    memory: int
    tokens_per_s: float
    free: int
    ranks: int = 1

    @property
    def disk(self) -> int | None:
        """Bytes still to be written."""
        return None if self.rows is None else self.rows * self.row_bytes

    @property
    def seconds(self) -> float | None:
        return None if self.forwarded is None else self.forwarded / self.tokens_per_s

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        speed = f"{self.tokens_per_s:,.0f} tokens/s"
        memory = f"memory {as_text(self.memory)}{' a rank' if self.ranks > 1 else ''}"
        if self.disk is None or self.seconds is None:
            each = f"{self.row_bytes:,} bytes a token"
            return f"as many tokens as the corpus has; disk {each}; {memory}; {speed}"
        return (
            f"{about}{self.rows:,} tokens; disk {as_text(self.disk)} of {as_text(self.free)} free; "
            f"{memory}; {about}{_duration(self.seconds)} at {speed}"
        )


def _duration(seconds: float) -> str:
    whole = max(1, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def rows_that_fit(model: Model, asked: Wanted, context: int) -> int:
    """How many rows of ``context`` tokens to run at once.

    Raises:
        BudgetError: a single row does not fit.
    """
    device = model.device
    kept, work = needs(
        model.anatomy, rows=1, width=context, save=asked.sites, logit_positions=0, d_vocab=0,
        grad=False,
    )  # fmt: skip
    each, free = kept + work, available(device)
    if each > free:
        raise BudgetError(
            f"a row of {context} tokens needs {as_text(each)} to run with these sites, but "
            f"{as_text(free)} are free: give a shorter context or fewer sites."
        )
    return max(1, min(TOKENS_AT_ONCE.get(device.type, 8192) // context, free // each))


def that_runs(model: Model, asked: Wanted, how: Packing) -> Packing:
    """The same packing with as many rows as really run: half as many each time memory runs out."""
    while True:
        try:
            _run(model, asked, how)
            return how
        except torch.OutOfMemoryError:
            if how.rows == 1:
                raise
            how = replace(how, rows=how.rows // 2)


def speed(model: Model, asked: Wanted, how: Packing) -> float:
    """Tokens a second of the model on full batches of this shape.

    Raises:
        BudgetError: such a batch does not fit in memory.
    """
    try:
        return how.rows * how.context / min(_run(model, asked, how) for _ in range(2))
    except torch.OutOfMemoryError as error:
        raise BudgetError(
            f"a batch of {how.rows} rows of {how.context} tokens does not fit in memory: give a smaller "
            "batch, or batch='auto' for a new store."
        ) from error


def _run(model: Model, asked: Wanted, how: Packing) -> float:
    """Seconds for one batch."""
    ids = torch.zeros(how.rows, how.context, dtype=torch.long, device=model.device)
    segments = torch.zeros_like(ids) if how.way == "isolated" else None
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), segments)
    start = time.perf_counter()
    cache = execute(
        model.anatomy, batch, save=asked.sites, logits="none", rows_at_once=len(batch)
    ).cache
    for site in asked.sites:  # on a GPU the run returns before it is done
        cache[site].flatten()[-1].item()
    return time.perf_counter() - start


def working_memory(model: Model, asked: Wanted, how: Packing, shard: int) -> int:
    """Bytes of a batch at work, and of two shards: one being filled, one on its way to disk."""
    kept, work = needs(
        model.anatomy, rows=how.rows, width=how.context, save=asked.sites, logit_positions=0,
        d_vocab=0, grad=False,
    )  # fmt: skip
    return kept + how.rows * work + 2 * shard


def check_disk(folder: Path, needed: int | None, *, shard: int) -> int:
    """Bytes free where the store will lie.

    Raises:
        StoreError: less than what it needs; or less than one shard, where the size is not known.
    """
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    least = shard if needed is None else needed
    if least > free:
        what = "one shard" if needed is None else "this harvest"
        raise StoreError(
            f"{what} needs {as_text(least)} in {str(folder)!r}, but {as_text(free)} are free there: "
            "make room, harvest fewer tokens (tokens=...), fewer sites, or dtype='bfloat16'; or use "
            "interp.stream, which stores nothing."
        )
    return free
