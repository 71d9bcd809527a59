"""What the same parts add to something they should not be about.

A part may push a logit up in every prompt, or push all logits up alike; neither says that it knows
the answer. The control scores each prompt with answers that are not its own, many times by seed,
and a part survives if its mean over prompts lies outside the central 95% of those means.

- Answers of several prompts: each draw is a permutation of the (answers, foils) pairs over the
  prompts, so that the answers stay the same in sum; no prompt keeps its own pair, or one equal to
  it, as far as the pairs allow.
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

__all__ = ["LEAST", "permuted", "random_directions", "random_tokens", "shuffle", "different"]

#: Fewer different pairs of answers and foils than this are too few to shuffle.
LEAST: Final = 5


def different(target: Logits) -> Int[Tensor, " prompt"]:
    """A number for each prompt, equal where answers and foils are."""
    sides = [target.answers[0]] if target.foils is None else [target.answers[0], target.foils[0]]
    ordered = [side.sort(-1).values for side in sides]
    return torch.cat(ordered, -1).unique(dim=0, return_inverse=True)[1]


def shuffle(target: Logits, *, draws: int, seed: int) -> Logits:
    """Each prompt with another prompt's answers and foils, once for each draw."""
    kind, generator = different(target), torch.Generator().manual_seed(seed)
    orders = torch.stack([permuted(kind, generator) for _ in range(draws)])
    foils = None if target.foils is None else target.foils[0][orders]
    return Logits(target.answers[0][orders], foils)


def permuted(kind: Int[Tensor, " prompt"], generator: torch.Generator) -> Int[Tensor, " prompt"]:
    """A random order in which no place holds its own kind, as far as swaps can bring it about."""
    order = torch.randperm(len(kind), generator=generator)
    for place in range(len(order)):
        if kind[order[place]] != kind[place]:
            continue
        fits = (kind[order] != kind[place]) & (kind != kind[order[place]])
        others = fits.nonzero().flatten()
        if len(others):
            pick = int(torch.randint(len(others), (1,), generator=generator))
            other = int(others[pick])
            order[[place, other]] = order[[other, place]]
    return order


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
