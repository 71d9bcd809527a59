"""What looks interpretable by chance: random directions and random tokens beside the features.

Two numbers say whether a feature's lists are more than lists. *Concentration* is the share of the most
frequent token among its strongest examples: 1 where all of them stand at one token. It is held against
tokens drawn at random from the corpus, and, harder, against random directions that read the same
activations: a direction of no meaning too is strongest at *some* token, and often at one alone.
*Kurtosis* of the logit effects says how sharply a feature points at few tokens; it is held against
random directions of the decoders' size in each coordinate. (Heap et al. 2025, arXiv:2501.17727: features of
an untrained model pass for interpretable.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.inspection.chosen import Chosen
from interp.inspection.ends import written
from interp.models.model import Model
from interp.weight_lenses.ends import unembedding
from interp.weight_lenses.reading import read

__all__ = ["by_chance", "concentration", "random_kurtosis", "random_readers"]


def random_readers(
    dictionary: Dictionary, n: int, seed: int
) -> tuple[Float[Tensor, "control d_in"], ...]:
    """About ``n`` random directions, spread over the parts, of the encoders' size in each coordinate."""
    parts = [part.enc.detach().float() for part in dictionary.parts]
    generator = torch.Generator().manual_seed(seed)
    each = -(-n // len(parts))
    return tuple(_like(enc, each, generator) for enc in parts)


def random_kurtosis(model: Model, chosen: Chosen, n: int, seed: int) -> Float[Tensor, " control"]:
    """Kurtosis of the logit effects of random directions like what all the features write."""
    every = written(Chosen.all(chosen.dictionary))
    rows = _like(every, n, torch.Generator().manual_seed(seed))
    return read(rows.to(model.device), unembedding(model), top=1).kurtosis


def concentration(
    tokens: Int[Tensor, "feature example"],
) -> tuple[Float[Tensor, " feature"], Int[Tensor, " feature"]]:
    """Share of the most frequent token among each row's, and that token; NaN and -1 of none.

    Args:
        tokens: ids; -1 where there is no example.
    """
    there = tokens >= 0
    same = (tokens[:, :, None] == tokens[:, None, :]) & there[:, :, None] & there[:, None, :]
    often = same.sum(-1)
    best = often.max(-1)
    share = best.values / there.sum(-1)
    return share, tokens.gather(1, best.indices[:, None])[:, 0].long()


def by_chance(
    vocabulary: Int[Tensor, " token"], k: int, *, draws: int = 1000, seed: int = 0
) -> Float[Tensor, "k draw"]:
    """Concentration of 1 to ``k`` tokens drawn at random from those that were read."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(vocabulary.cpu().double(), draws * k, True, generator=generator)
    rows = drawn.view(draws, k)
    return torch.stack([concentration(rows[:, :n])[0] for n in range(1, k + 1)])


def _like(
    rows: Float[Tensor, "feature width"], n: int, generator: torch.Generator
) -> Float[Tensor, "control width"]:
    """Gaussian directions with the rows' root mean square in each coordinate."""
    size = rows.square().mean(0).sqrt()
    return torch.randn(n, rows.shape[1], generator=generator).to(rows) * size
