"""Do two measurements of the same cells agree? Pearson's and Spearman's correlation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Pairs", "pearson", "ranks", "spearman"]

Pairs = Float[Tensor, "*draws cell"]


def pearson(x: Pairs, y: Pairs) -> Float[Tensor, "*draws"]:
    """Linear correlation over cells, -1 to 1; nan where one of the two is constant."""
    x, y = (v.double() - v.double().mean(-1, keepdim=True) for v in (x, y))
    size = x.norm(dim=-1) * y.norm(dim=-1)
    return torch.where(size > 0, (x * y).sum(-1) / size, torch.nan).clamp(-1, 1)


def spearman(x: Pairs, y: Pairs) -> Float[Tensor, "*draws"]:
    """Correlation of the ranks, -1 to 1: whether the order is the same. Ties share a rank."""
    return pearson(ranks(x), ranks(y))


def ranks(x: Pairs) -> Pairs:
    """Each cell's place in ascending order from 1; equal values get the mean of their places.

    >>> ranks(torch.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    ordered = x.sort(-1).values.contiguous()
    x = x.contiguous()
    below = torch.searchsorted(ordered, x)
    up_to = torch.searchsorted(ordered, x, right=True)
    return (below + up_to + 1).double() / 2
