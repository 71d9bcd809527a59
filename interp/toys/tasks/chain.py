"""A Markov chain over tokens: the bigram statistics that several tasks stand on.

Row i of ``transitions`` is the distribution of what follows token i, drawn once from a Dirichlet
distribution: with a small concentration few tokens are likely, with a large one all are alike. A chain's
entropy is exact, so a loss on it has an exact lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ToyError

__all__ = ["Chain"]


@dataclass(frozen=True)
class Chain:
    """Tokens 0 to d_vocab-1, each followed by one drawn from its own row.

    Attributes:
        d_vocab: how many tokens.
        concentration: of the rows' Dirichlet distribution, above 0.
        first: tokens below it never follow any (room for a BOS).
        seed: of the rows.

    Raises:
        ToyError: numbers out of range.
    """

    d_vocab: int
    concentration: float = 0.1
    first: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.concentration <= 0 or not 0 <= self.first < self.d_vocab - 1:
            raise ToyError(
                f"{self}: expected a concentration above 0, and two tokens or more from first={self.first}."
            )

    @cached_property
    def transitions(self) -> Float[Tensor, "d_vocab d_vocab"]:
        """P(next | token), a row for each token, in float64."""
        draw = np.random.default_rng(self.seed)
        alpha = np.full(self.d_vocab - self.first, self.concentration)
        rows = np.zeros((self.d_vocab, self.d_vocab))
        rows[:, self.first :] = draw.dirichlet(alpha, size=self.d_vocab)
        return torch.from_numpy(rows)

    @cached_property
    def entropy(self) -> Float[Tensor, " d_vocab"]:
        """Of what follows each token, in nats: the least loss at a position that holds it."""
        return torch.special.entr(self.transitions).sum(-1)

    def step(
        self, tokens: Int[Tensor, "*rows"], chance: Float[Tensor, "*rows"]
    ) -> Int[Tensor, "*rows"]:
        """What follows each token, by a number from 0 to 1 for each (inverse of the cumulated row)."""
        wanted = chance[..., None].double().contiguous()
        found = torch.searchsorted(self._cumulated[tokens], wanted, right=True)
        return found[..., 0].minimum(self._last[tokens])

    @cached_property
    def _cumulated(self) -> Float[Tensor, "d_vocab d_vocab"]:
        return self.transitions.cumsum(-1)

    @cached_property
    def _last(self) -> Int[Tensor, " d_vocab"]:
        """The largest token that can follow: a sum of float64 may end a little below 1."""
        possible = (self.transitions > 0).int()
        return self.d_vocab - 1 - possible.flip(-1).argmax(-1)

    def walk(self, n: int, length: int, generator: torch.Generator) -> Int[Tensor, "n length"]:
        """Rows of tokens, the first drawn uniformly."""
        chance = torch.rand(n, length, generator=generator, dtype=torch.float64)
        start = self.first + (chance[:, 0] * (self.d_vocab - self.first)).long()
        rows = [start]
        for t in range(1, length):
            rows.append(self.step(rows[-1], chance[:, t]))
        return torch.stack(rows, 1)
