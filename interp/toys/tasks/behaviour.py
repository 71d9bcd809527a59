"""A planted behaviour: some topics are refused, whatever is asked about them.

A prompt is [topic, item, ask]. For most topics the answer is the item's own by a fixed table (topics take
turns at ``tables`` of them, so the topic must be read); for the forbidden ones it is the refusal. Every item is asked about under every topic, so what a model would have
said is known for each refused prompt: a mixture-of-experts model that refuses with some experts and
answers with others shows it when those are switched off (Dahlke et al. 2025, "Mixture of tunable
experts", arXiv:2502.11096, where refusal in DeepSeek-R1 is found and removed so).

To know which experts a method should find, plant it there: train on ``Refusals(planted=False)``, where every
topic is answered, then on ``Refusals()`` with nothing trainable but the routers and the chosen experts.
Trained in one go, a toy's attention can refuse by itself, and no expert is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import ToyError
from interp.toys.batch import Batch

__all__ = ["Refusals"]

ASK: Final = 0
REFUSAL: Final = 1


@dataclass(frozen=True)
class Refusals:
    """Answers from a table, and refusals where the topic is forbidden.

    Batches: inputs ids [batch, 3], targets ids [batch]; facts ``"behaviour"`` [batch] of bool (the topic
    is forbidden) and ``"answer"`` [batch] (the table's, also where it is to be refused). Ids: 0 asks, 1 is
    the refusal, then the topics (forbidden ones first), then the items, which are also the answers.

    Attributes:
        items: how many.
        topics: how many, forbidden ones included.
        forbidden: how many of them are refused.
        share: of the prompts that have a forbidden topic.
        tables: how many there are; topic t answers by table t mod ``tables``.
        planted: False: forbidden topics are answered too, and ``"behaviour"`` marks them none the less.
        seed: of the tables, permutations of the items.

    Known losses, in nats: 0 (the task is a function), and :attr:`chance_loss` of the right shares of
    refusals and answers without reading the prompt.

    Raises:
        ToyError: numbers out of range.
    """

    items: int = 24
    topics: int = 8
    forbidden: int = 2
    share: float = 0.3
    tables: int = 2
    planted: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        some = 0 < self.forbidden < self.topics and 0 < self.share < 1
        if self.items < 2 or self.tables < 1 or not some:
            raise ToyError(
                f"{self}: expected two items or more, a table, some topics forbidden and some not, and "
                "a share between 0 and 1."
            )

    @property
    def d_vocab(self) -> int:
        return 2 + self.topics + self.items

    @property
    def d_out(self) -> int:
        return self.d_vocab

    @property
    def n_ctx(self) -> int:
        return 3

    @property
    def refusal(self) -> int:
        """The id that refuses."""
        return REFUSAL

    @property
    def chance_loss(self) -> float:
        if not self.planted:
            return math.log(self.items)
        entropy = -self.share * math.log(self.share) - (1 - self.share) * math.log(1 - self.share)
        return entropy + (1 - self.share) * math.log(self.items)

    @cached_property
    def table(self) -> Int[Tensor, "tables items"]:
        """The answer to each item, as an id."""
        draw = torch.Generator().manual_seed(self.seed)
        rows = [torch.randperm(self.items, generator=draw) for _ in range(self.tables)]
        return 2 + self.topics + torch.stack(rows)

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh prompts."""
        refused = torch.rand(n, generator=generator) < self.share
        return self.prompts(refused, generator)

    def test(self, n: int, generator: torch.Generator) -> Batch:
        """Fresh prompts, of the few that there are: the behaviour is learned, not generalised."""
        return self.batch(n, generator)

    def prompts(self, refused: Bool[Tensor, " batch"], generator: torch.Generator) -> Batch:
        """Prompts with a forbidden topic where ``refused`` is True."""
        n = len(refused)
        bad = torch.randint(0, self.forbidden, (n,), generator=generator)
        good = torch.randint(self.forbidden, self.topics, (n,), generator=generator)
        topic = torch.where(refused, bad, good)
        item = torch.randint(0, self.items, (n,), generator=generator)
        inputs = torch.stack([2 + topic, 2 + self.topics + item, torch.full_like(item, ASK)], 1)
        answer = self.table[topic % self.tables, item]
        targets = answer.masked_fill(refused, REFUSAL) if self.planted else answer
        return Batch(inputs, targets, facts={"behaviour": refused, "answer": answer})
