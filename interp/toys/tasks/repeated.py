"""Repeated data: a small share of the training rows comes again and again.

A tenth of all rows drawn from a small pool is memorised, and what suffers is more than the test loss:
copying and induction break first (Hernandez et al. 2022, "Scaling laws and interpretability of learning from
repeated data", arXiv:2205.10487). :class:`RepeatedData` makes any task such a mixture; :class:`CopyingText`
is a language in which copying pays, with a pure test of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ToyError
from interp.toys.batch import Batch
from interp.toys.task import Task
from interp.toys.tasks.chain import Chain

__all__ = ["CopyingText", "RepeatedData"]


@dataclass(frozen=True)
class CopyingText:
    """Rows of a Markov chain; in some the second half repeats the first.

    Batches: inputs ids [batch, length], targets the next ids, all positions scored; facts ``"copied"``
    [batch, length] of bool: the target repeats what came half a row before, and the repetition has begun.

    Attributes:
        d_vocab: tokens.
        length: of a row, even.
        copies: share of the rows that repeat themselves.
        concentration: of the chain's rows.
        seed: of the chain.

    Known losses, in nats: :meth:`optimal`, the chain's entropy where nothing repeats and 0 where it does
    (a bound: a reader must first notice), and :attr:`chance_loss` = log d_vocab.

    Raises:
        ToyError: numbers out of range.
    """

    d_vocab: int = 64
    length: int = 32
    copies: float = 0.5
    concentration: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 4 or self.length % 2 or not 0 <= self.copies <= 1:
            raise ToyError(
                f"{self}: expected an even length ≥ 4, and a share of copies from 0 to 1."
            )

    @property
    def d_out(self) -> int:
        return self.d_vocab

    @property
    def n_ctx(self) -> int:
        return self.length

    @property
    def chance_loss(self) -> float:
        return math.log(self.d_vocab)

    @cached_property
    def chain(self) -> Chain:
        """What follows what."""
        return Chain(self.d_vocab, self.concentration, seed=self.seed)

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows."""
        rows = self.chain.walk(n, self.length + 1, generator)
        repeats = torch.rand(n, generator=generator) < self.copies
        return self._batch(self._repeated(rows, repeats), repeats)

    def test(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows."""
        return self.batch(n, generator)

    def copying(self, n: int, generator: torch.Generator) -> Batch:
        """Random tokens, repeated, scored only where copying can tell the answer.

        No chain helps here, so the loss on these rows is that of copying alone; 0 is perfect, log d_vocab
        is none.
        """
        rows = torch.randint(0, self.d_vocab, (n, self.length + 1), generator=generator)
        every = torch.ones(n, dtype=torch.bool)
        made = self._batch(self._repeated(rows, every), every)
        return Batch(made.inputs, made.targets, made.facts["copied"], made.facts)

    def optimal(self, batch: Batch) -> Float[Tensor, "batch length"]:
        """Least expected loss at each position if it is known which rows repeat, in nats (float64).

        The one target where a repeating row turns back to its beginning is not counted right: what stood
        there first does not follow from the token before.
        """
        return self.chain.entropy[batch.inputs].masked_fill(batch.facts["copied"], 0.0)

    def _repeated(self, rows: Tensor, repeats: Tensor) -> Tensor:
        """Tokens from half a row on are those of half a row before, in the rows that repeat."""
        half = self.length // 2
        again = rows[:, torch.arange(self.length + 1) % half]
        return torch.where(repeats[:, None], again, rows)

    def _batch(self, rows: Tensor, repeats: Tensor) -> Batch:
        inputs, targets = rows[:, :-1], rows[:, 1:]
        late = (
            torch.arange(self.length) >= self.length // 2
        )  # the first repeated token has been read
        copied = repeats[:, None] & late
        return Batch(inputs, targets, torch.ones_like(copied), {"copied": copied})


@dataclass(frozen=True)
class RepeatedData:
    """A task, of which a share of the rows always comes from one small pool.

    Batches are those of ``base`` with the fact ``"repeated"`` [batch] of bool.

    Attributes:
        base: where fresh rows and the pool come from.
        share: of a batch that is from the pool; 0: all unique (the null).
        pool: rows in it. With ``steps`` batches of ``n`` rows each is seen steps · n · share / pool
            times.
        seed: of the pool.

    Raises:
        ToyError: a share outside 0 to 1, or an empty pool.
    """

    base: Task
    share: float = 0.1
    pool: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.pool < 1:
            raise ToyError(
                f"RepeatedData(share={self.share}, pool={self.pool}); expected a share from 0 to 1, and "
                "at least one row to repeat."
            )

    def __getattr__(self, name: str) -> object:
        """Sizes, losses and tests of the base (d_vocab, n_ctx, copying, ...)."""
        if name.startswith("_") or name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    @cached_property
    def repeated(self) -> Batch:
        """The pool: rows to measure memorisation on."""
        return self.base.batch(self.pool, torch.Generator().manual_seed(self.seed))

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows, of which each is replaced by one of the pool with probability ``share``.

        Raises:
            ToyError: a base that has only one training set.
        """
        fresh = self.base.batch(n, generator)
        if len(fresh) != n:
            raise ToyError(
                f"{type(self.base).__name__} gave {len(fresh)} rows for {n}: its training set is fixed, and "
                "all of it repeats already. Give a task that draws fresh rows."
            )
        again = torch.rand(n, generator=generator) < self.share
        chosen = torch.randint(0, self.pool, (n,), generator=generator)

        def mixed(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(again.view(-1, *[1] * (new.ndim - 1)), old[chosen], new)

        old = self.repeated
        where = None if fresh.where is None else mixed(fresh.where, _present(old.where))
        facts = {name: mixed(one, old.facts[name]) for name, one in fresh.facts.items()}
        return Batch(
            mixed(fresh.inputs, old.inputs), mixed(fresh.targets, old.targets), where,
            {**facts, "repeated": again},
        )  # fmt: skip

    def test(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows only."""
        return self.base.batch(n, generator)


def _present(where: Tensor | None) -> Tensor:
    assert where is not None  # both are batches of one task
    return where
