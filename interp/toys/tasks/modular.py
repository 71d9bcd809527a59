"""Modular arithmetic with a share of wrong labels: every pair of ids, split once into training and test.

A pair (a, b) has the label a + b mod p (or a - b, a · b). A network that knows only its training set
answers test pairs by chance; one that has found the rule answers all. With a share ξ of the training labels
drawn at random, a network can do both: memorise those and know the rule (Doshi et al. 2023,
arXiv:2310.13061). With ξ = 1 there is no rule to find: the null.

The true labels stay with every row, so three accuracies are told apart: on test rows, on corrupted rows by
the label they were given (memorised), and on corrupted rows by the true one (seen through).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import ToyError, nearest
from interp.toys.batch import Batch

__all__ = ["ModularArithmetic"]

_OPERATIONS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
}


@dataclass(frozen=True)
class ModularArithmetic:
    """All pairs of 0 to p-1, of which ``frac`` are trained on, in one batch.

    Batches: inputs ids [batch, 2], targets ids [batch]; facts ``"true"`` [batch] (the rule's label) and
    ``"corrupted"`` [batch] of bool (the label was drawn at random, and is the true one by chance only).

    Attributes:
        p: the modulus; ids and classes.
        operation: of the two ids.
        frac: share of all pairs that is trained on, above 0 and below 1.
        corruption: ξ, share of the training labels that is drawn uniformly from all p.
        seed: of the split and the drawn labels.

    Known losses, in nats: guessing has :attr:`chance_loss` = log p; with ξ = 0 the rule has 0.

    Raises:
        ToyError: a number out of range, or no such operation.
    """

    p: int = 97
    operation: Literal["add", "subtract", "multiply"] = "add"
    frac: float = 0.5
    corruption: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.operation not in _OPERATIONS:
            raise ToyError(
                f"operation={self.operation!r}; nearest: {nearest(self.operation, _OPERATIONS)}."
            )
        if self.p < 2 or not 0 < self.frac < 1 or not 0 <= self.corruption <= 1:
            raise ToyError(
                f"{self}: expected p ≥ 2, frac above 0 and below 1, and a corruption from 0 to 1."
            )
        if self.n_train < 1:
            raise ToyError(f"{self}: of {self.p**2} pairs none is trained on; raise frac.")

    @property
    def d_vocab(self) -> int:
        return self.p

    @property
    def d_out(self) -> int:
        return self.p

    @property
    def n_ctx(self) -> int:
        return 2

    @property
    def chance_loss(self) -> float:
        """log p, in nats: all answers alike."""
        return math.log(self.p)

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """The whole training set, whatever ``n``: nothing is drawn."""
        return self.train

    def test(self, n: int, generator: torch.Generator) -> Batch:
        """All pairs that are not trained on, with their true labels, whatever ``n``."""
        return self.heldout

    @cached_property
    def train(self) -> Batch:
        """Training rows: the corrupted ones first."""
        return self._rows(slice(0, self.n_train))

    @cached_property
    def heldout(self) -> Batch:
        """Test rows."""
        return self._rows(slice(self.n_train, None))

    @cached_property
    def corrupted(self) -> Batch:
        """Training rows whose label was drawn at random: targets as given, ``facts["true"]`` the rule's."""
        return self._rows(slice(0, self.n_corrupted))

    @cached_property
    def clean(self) -> Batch:
        """Training rows with the rule's label."""
        return self._rows(slice(self.n_corrupted, self.n_train))

    @property
    def n_train(self) -> int:
        return int(self.frac * self.p**2)

    @property
    def n_corrupted(self) -> int:
        return int(self.corruption * self.n_train)

    def answer(self, inputs: Int[Tensor, "*rows 2"]) -> Int[Tensor, "*rows"]:
        """The rule's labels."""
        return _OPERATIONS[self.operation](inputs[..., 0], inputs[..., 1]) % self.p

    @cached_property
    def _drawn(self) -> tuple[Int[Tensor, "pairs 2"], Int[Tensor, " corrupted"]]:
        """All pairs in the order of the split, and labels for the first of them."""
        draw = torch.Generator().manual_seed(self.seed)
        ids = torch.arange(self.p)
        pairs = torch.cartesian_prod(ids, ids)[torch.randperm(self.p**2, generator=draw)]
        return pairs, torch.randint(0, self.p, (self.n_corrupted,), generator=draw)

    def _rows(self, chosen: slice) -> Batch:
        pairs, wrong = self._drawn
        true = self.answer(pairs)
        targets = torch.cat([wrong, true[self.n_corrupted :]])
        corrupted = torch.arange(len(pairs)) < self.n_corrupted
        return Batch(
            inputs=pairs[chosen],
            targets=targets[chosen],
            facts={"true": true[chosen], "corrupted": corrupted[chosen]},
        )
