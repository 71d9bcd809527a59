"""Entries by feature instead of by row: what gradients sum over, and the faster way through memory.

Decoder and encoder are larger than the cache, the rows of a batch are not: read in the order of
features, each weight is fetched once, in sequence, and only the batch's rows at random.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ByFeature", "by_feature", "dots"]


@dataclass(frozen=True, eq=False)
class ByFeature:
    """Entries in the order of their features; within a feature in the order they had.

    Attributes:
        permutation: the old place of each entry.
        rows: the row of each entry, in the new order.
        bounds: where each feature's entries begin, and where the last one's end.
        n_rows: rows there are.
    """

    permutation: Int[Tensor, " active"]
    rows: Int[Tensor, " active"]
    bounds: Int[Tensor, " d_sae_and_one"]
    n_rows: int


def by_feature(
    features: Int[Tensor, " active"], rows: Int[Tensor, " active"], n_rows: int, d_sae: int
) -> ByFeature:
    """Sort entries by feature."""
    permutation = torch.sort(features.to(torch.int32), stable=True).indices
    bounds = torch.zeros(d_sae + 1, dtype=torch.long, device=features.device)
    torch.cumsum(torch.bincount(features, minlength=d_sae), 0, out=bounds[1:])
    return ByFeature(permutation, rows[permutation], bounds, n_rows)


def dots(
    order: ByFeature, weights: Float[Tensor, "d_sae width"], x: Float[Tensor, "rows width"]
) -> Float[Tensor, " active"]:
    """``weights[feature] · x[row]`` for each entry, in the order of features."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            weights, x, order.rows, order.bounds[:-1], _bags(order), 0, -1
        )
    with warnings.catch_warnings():  # torch says once that its sparse rows are beta
        warnings.simplefilter("ignore", UserWarning)
        pattern = torch.sparse_csr_tensor(
            order.bounds, order.rows, x.new_zeros(len(order.rows)),
            (len(weights), order.n_rows), check_invariants=False,
        )  # fmt: skip
    return torch.sparse.sampled_addmm(pattern, weights, x.T, beta=0.0).values()


def _bags(order: ByFeature) -> Int[Tensor, " active"]:
    index = torch.arange(len(order.bounds) - 1, device=order.rows.device)
    return torch.repeat_interleave(index, order.bounds.diff(), output_size=len(order.rows))
