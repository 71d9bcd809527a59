"""Are two representations of the same rows alike? CKA and representational similarity.

Both compare how rows relate to each other, so the two may have different dimensions and bases:
two layers, two models, a trained model and its untrained twin.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.correlation import spearman
from interp.geometry.rows import as_rows, paired

__all__ = ["Distance", "cka", "cross_hsic", "dissimilarity", "rsa"]

Distance = Literal["correlation", "cosine"]


def cka(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], *, debiased: bool = True
) -> Float[Tensor, ""]:
    """Linear centred kernel alignment of two representations of the same ``n`` rows.

    1 = equal up to rotation, reflection, one scale and a shift; 0 = unrelated. The plain
    estimate (``debiased=False``) lies in 0 to 1, but grows with d/n: two independent clouds of
    more dimensions than rows come close to 1. The debiased one is about 0 there, and may fall a
    little below 0 or above 1.

    Args:
        debiased: estimate HSIC without bias (needs n ≥ 4).

    Raises:
        MetricError: different numbers of rows, too few, or rows that are all the same.

    Source:
        Kornblith et al. 2019, arXiv:1905.00414, equations 3-4; the unbiased HSIC of Song et al.
        2012 (JMLR 13), equation 5, used for CKA by Nguyen et al. 2021, arXiv:2010.15327.
    """
    x, y = paired(x, y, "cka()", least=4 if debiased else 2)
    x, y = x - x.mean(0), y - y.mean(0)
    within = [cross_hsic(z, z, debiased=debiased) for z in (x, y)]
    if not (within[0] > 0 and within[1] > 0):
        raise MetricError("cka() got rows that are all the same: there is nothing to align.")
    return cross_hsic(x, y, debiased=debiased) / (within[0] * within[1]).sqrt()


def cross_hsic(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], *, debiased: bool
) -> Float[Tensor, ""]:
    """HSIC of two **centred** representations under the linear kernel, up to a common factor.

    The n × n kernels are never built where n is larger than d and e: the sums that the unbiased
    estimate needs are sums over features.
    """
    n = len(x)
    if n * n < x.shape[1] * y.shape[1]:
        joint = ((x @ x.T) * (y @ y.T)).sum()
    else:
        joint = (x.T @ y).square().sum()
    if not debiased:
        return joint
    a, b = x.square().sum(1), y.square().sum(1)  # the diagonals that the unbiased estimate drops
    # Centred rows sum to zero, so a row of the kernel without its diagonal sums to minus that.
    return joint - a @ b + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a @ b)


def dissimilarity(
    x: Float[Tensor, "n d"], *, distance: Distance = "correlation"
) -> Float[Tensor, "n n"]:
    """One minus the correlation (or cosine) of each pair of rows, 0 to 2; zero on the diagonal.

    Raises:
        MetricError: a row without direction (constant, or zero for cosine).
    """
    rows = as_rows(x, "dissimilarity()")
    if distance not in ("correlation", "cosine"):
        raise MetricError(f"distance={distance!r}, expected 'correlation' or 'cosine'.")
    whole = rows.norm(dim=-1, keepdim=True)
    if distance == "correlation":
        rows = rows - rows.mean(-1, keepdim=True)
    size = rows.norm(dim=-1, keepdim=True)
    if (size <= 1e-12 * whole).any():
        raise MetricError(
            f"dissimilarity(): a row is {'constant' if distance == 'correlation' else 'zero'} and "
            "has no direction; leave it out."
        )
    out = 1 - (rows / size) @ (rows / size).T
    return out.clamp(0, 2).fill_diagonal_(0)


def rsa(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], *, distance: Distance = "correlation"
) -> Float[Tensor, ""]:
    """Spearman's correlation of two dissimilarity matrices, over pairs of rows.

    1 = the same pairs are alike in both, 0 = no relation, -1 = the reverse order. Takes n²
    memory.

    Raises:
        MetricError: different numbers of rows, fewer than 3, or a row without direction.

    Source:
        Kriegeskorte, Mur & Bandettini 2008, "Representational similarity analysis".
    """
    x, y = paired(x, y, "rsa()", least=3)
    upper = torch.triu_indices(len(x), len(x), offset=1)
    first, second = (dissimilarity(z, distance=distance)[upper[0], upper[1]] for z in (x, y))
    return spearman(first, second)
