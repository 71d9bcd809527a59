"""What the same parts add to something they should not be about.

A part may push a logit up in every prompt, or push all logits up alike; neither says that it knows
the answer. The control scores each prompt with answers dealt out at random, many times by seed, and
a part survives if its mean over prompts ranks among the most extreme 5% of those means and its own.

- Answers of several prompts: each draw is a random permutation of the (answers, foils) pairs over
  the prompts, so that the answers stay the same in sum. A prompt may be dealt its own pair: only
  then is the prompts' own order one more draw of the same kind to a part that knows nothing, and
  the level exact (with few prompts, derangements alone let through four times as many).
- Fewer than ``LEAST`` different pairs (a single prompt): each draw is a random token of the
  vocabulary, or two, one as the foil, never one of the prompts' own.
- A direction: each draw is a Gaussian direction of the same length.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.direct.targets import Along, Logits

__all__ = ["LEAST", "random_directions", "random_tokens", "shuffle", "different"]

#: Fewer different pairs of answers and foils than this are too few to shuffle.
LEAST: Final = 5


def different(target: Logits) -> Int[Tensor, " prompt"]:
    """A number for each prompt, equal where answers and foils are."""
    sides = [target.answers[0]] if target.foils is None else [target.answers[0], target.foils[0]]
    ordered = [side.sort(-1).values for side in sides]
    return torch.cat(ordered, -1).unique(dim=0, return_inverse=True)[1]


def shuffle(target: Logits, *, draws: int, seed: int) -> Logits:
    """The prompts' answers and foils in another order, once for each draw."""
    prompts, generator = target.answers.shape[1], torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(prompts, generator=generator) for _ in range(draws)])
    foils = None if target.foils is None else target.foils[0][orders]
    return Logits(target.answers[0][orders], foils)


def random_tokens(target: Logits, *, d_vocab: int, draws: int, seed: int) -> Logits:
    """A random token for each draw, the same for all prompts; two where there are foils."""
    sides = [target.answers] if target.foils is None else [target.answers, target.foils]
    own = torch.cat([side.flatten() for side in sides]).unique()
    free = torch.ones(d_vocab, dtype=torch.bool)
    free[own[own >= 0]] = False
    others = free.nonzero().flatten()
    others = others if len(others) > 1 else torch.arange(d_vocab)
    generator = torch.Generator().manual_seed(seed)
    prompts = target.answers.shape[1]
    first = torch.randint(len(others), (draws,), generator=generator)
    step = torch.randint(1, max(2, len(others)), (draws,), generator=generator)
    second = (first + step) % len(others)  # never the first again

    def spread(which: Tensor) -> Tensor:
        return others[which][:, None, None].expand(draws, prompts, 1)

    return Logits(spread(first), None if target.foils is None else spread(second))


def random_directions(
    vectors: Float[Tensor, "1 prompt d_model"], *, draws: int, seed: int
) -> Along:
    """A Gaussian direction for each draw, the same for all prompts, as long as each one's own."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(draws, 1, vectors.shape[-1], generator=generator).to(vectors)
    unit = drawn / drawn.norm(dim=-1, keepdim=True)
    return Along(unit * vectors.norm(dim=-1, keepdim=True))
