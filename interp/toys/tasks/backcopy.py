"""Bigram-backcopy: a task for which a head must sometimes do nothing, which makes an attention sink.

Each token follows the one before by a Markov chain, except after a *trigger*: there the token before the
trigger comes again. A head that copies is needed after triggers only; elsewhere softmax forces it to attend
to something, and BOS with a value near zero is where it does no harm (active-dormant heads). Sigmoid
attention need not sum to 1, and the same head can be silent (Gu et al. 2024, arXiv:2410.10781).

Source: the task is of Guo et al. 2024, "Active-dormant attention heads", arXiv:2410.13835. Departures: the
chain is random where theirs is fitted to text; BOS is token 0, then come the triggers, 1 to ``triggers``;
the token after BOS is uniform over those that are none, so that no trigger is ever copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import ToyError
from interp.toys.batch import Batch
from interp.toys.tasks.chain import Chain

__all__ = ["BigramBackcopy"]

BOS: Final = 0


@dataclass(frozen=True)
class BigramBackcopy:
    """Next-token prediction with BOS, bigrams and triggers that call for a copy.

    Batches: inputs ids [batch, length], targets the next ids [batch, length], scored from the second
    position on; facts ``"trigger"`` [batch, length] of bool: the token here is a trigger, so the target
    is the token before.

    Attributes:
        d_vocab: tokens, BOS and triggers included.
        length: of a row.
        triggers: how many tokens call for a copy; 0: none, a plain chain (a null).
        concentration: of the chain's rows; the smaller, the more can be known from the last token.
        seed: of the chain.

    Known losses, in nats: :meth:`optimal` is exact for any batch, 0 at triggers and the entropy of
    the token's row elsewhere; :attr:`chance_loss` is that of all tokens but BOS alike.

    Raises:
        ToyError: numbers out of range.
    """

    d_vocab: int = 48
    length: int = 48
    triggers: int = 4
    concentration: float = 0.08
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 3 or not 0 <= self.triggers < self.d_vocab - 2:
            raise ToyError(
                f"{self}: expected length ≥ 3, and BOS, the triggers and two tokens more in d_vocab."
            )

    @property
    def d_out(self) -> int:
        return self.d_vocab

    @property
    def n_ctx(self) -> int:
        return self.length

    @property
    def chance_loss(self) -> float:
        return math.log(self.d_vocab - 1)

    @cached_property
    def chain(self) -> Chain:
        """What follows what, where no trigger stands."""
        return Chain(self.d_vocab, self.concentration, first=1, seed=self.seed)

    def is_trigger(self, tokens: Int[Tensor, "*rows"]) -> Bool[Tensor, "*rows"]:
        return (tokens > BOS) & (tokens <= self.triggers)

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows."""
        rows = self._walk(n, generator)
        tokens = rows[:, :-1]
        where = torch.ones_like(tokens, dtype=torch.bool)
        where[:, 0] = False  # nothing tells the token after BOS
        return Batch(tokens, rows[:, 1:], where, {"trigger": self.is_trigger(tokens)})

    def test(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh rows: there are far more than any training run sees."""
        return self.batch(n, generator)

    def optimal(self, batch: Batch) -> Float[Tensor, "batch length"]:
        """The Bayes-optimal expected loss at each position, in nats (float64); scored ones only are exact."""
        known = self.is_trigger(batch.inputs)
        return self.chain.entropy[batch.inputs].masked_fill(known, 0.0)

    def _walk(self, n: int, generator: torch.Generator) -> Int[Tensor, "n longer"]:
        chance = torch.rand(n, self.length + 1, generator=generator, dtype=torch.float64)
        plain = self.triggers + 1
        start = plain + (chance[:, 1] * (self.d_vocab - plain)).long()
        rows = [torch.full_like(start, BOS), start]
        for t in range(2, self.length + 1):
            follows = self.chain.step(rows[-1], chance[:, t])
            rows.append(torch.where(self.is_trigger(rows[-1]), rows[-2], follows))
        return torch.stack(rows, 1)
