"""Do two measurements of the same cells agree? Pearson's and Spearman's correlation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import array

__all__ = ["Pairs", "pearson", "ranks", "spearman"]

Pairs = Float[Tensor, "*draws cell"]


def pearson(x: Pairs, y: Pairs) -> Float[Tensor, "*draws"]:
    """Linear correlation over cells, -1 to 1; nan where one of the two is constant or has a nan.

    Raises:
        MetricError: the two differ in their number of cells.
    """
    x, y = _paired(x, y)
    x, y = (v.double() - v.double().mean(-1, keepdim=True) for v in (x, y))
    size = x.norm(dim=-1) * y.norm(dim=-1)
    return torch.where(size > 0, (x * y).sum(-1) / size, torch.nan).clamp(-1, 1)


def spearman(x: Pairs, y: Pairs) -> Float[Tensor, "*draws"]:
    """Correlation of the ranks, -1 to 1: whether the order is the same. Ties share a rank.

    nan where one of the two is constant or has a nan.

    Raises:
        MetricError: the two differ in their number of cells.
    """
    x, y = _paired(x, y)
    return pearson(ranks(x), ranks(y))


def _paired(x: Pairs, y: Pairs) -> tuple[Pairs, Pairs]:
    x, y = array(x, "correlation"), array(y, "correlation")
    if x.shape[-1:] != y.shape[-1:]:
        raise MetricError(
            f"a correlation of arrays of shapes {list(x.shape)} and {list(y.shape)}; expected as many "
            "cells in both."
        )
    return x, y


def ranks(x: Pairs) -> Pairs:
    """Each cell's place in ascending order from 1; equal values get the mean of their places.

    A nan has no place: its rank is nan.

    >>> ranks(torch.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    x = array(x, "ranks()").contiguous()
    ordered = x.sort(-1).values.contiguous()
    below = torch.searchsorted(ordered, x)
    up_to = torch.searchsorted(ordered, x, right=True)
    return ((below + up_to + 1).double() / 2).masked_fill(x.isnan(), torch.nan)
