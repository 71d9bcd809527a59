"""The k largest of each row, exactly, without sorting or partitioning all of it.

Split a row into groups and take each group's maximum: the k groups with the largest maxima hold a
top-k set, for an element outside them is no larger than k others. Groups are strided (element i is in
group i mod G), so that their maxima are one pass of vector instructions; what is left to select from is
about √(k·n) maxima and as many candidates.

``torch.topk`` selects pairs of value and index with scalar code. numpy partitions bare numbers with
vector instructions, five times as fast on one thread; which elements reach the k-th value is then
one comparison. On a GPU, or with many threads, ``torch.topk`` is faster.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "by_numpy",
    "exact_topk",
    "how_many_groups",
    "in_groups",
    "kth_largest",
    "members",
    "nonzero",
]

_FEW_THREADS = 4  # numpy selects on one
_NARROW = 512  # numpy's fastest width


def exact_topk(
    h: Float[Tensor, "*rows n"], k: int
) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
    """The ``k`` largest of each row and where they stand, in no particular order.

    Among equal values any may be taken, as by ``torch.topk(sorted=False)``, whose values these are.

    >>> values, features = exact_topk(torch.tensor([[0.1, 3.0, -1.0, 2.0]]), 2)
    >>> sorted(features[0].tolist())
    [1, 3]
    """
    if h.dim() != 2:
        values, index = exact_topk(h.reshape(-1, h.shape[-1]), k)
        return values.view(*h.shape[:-1], k), index.view(*h.shape[:-1], k)
    if not by_numpy(h):
        values, index = h.topk(k, dim=-1, sorted=False)
        return values, index
    index = _largest(h.detach(), k)
    return h.gather(-1, index), index


def by_numpy(h: Tensor) -> bool:
    """Whether numpy's selection is the faster one here."""
    return h.device.type == "cpu" and torch.get_num_threads() <= _FEW_THREADS


def nonzero(mask: Tensor) -> Int[Tensor, " hits"]:
    """Where the flattened mask is true, in ascending order."""
    if by_numpy(mask):
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero()[:, 0]


def kth_largest(values: Float[Tensor, " n"], k: int) -> Float[Tensor, ""]:
    """The ``k``-th largest number; 0 where there are fewer or it is negative."""
    if len(values) < k:
        return values.new_zeros(())
    if by_numpy(values) and values.dtype != torch.bfloat16:
        n = len(values)
        least = torch.from_numpy(np.partition(values.numpy(), n - k)[n - k : n - k + 1])[0]
    else:
        least = values.topk(k, sorted=False).values.min()
    return least.clamp(min=0)


def in_groups(h: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """``[rows, size, groups]`` of strided groups, and the few elements that are left over."""
    even = h.shape[1] // groups * groups
    return h[:, :even].unflatten(1, (-1, groups)), h[:, even:]


def members(chosen: Int[Tensor, "rows k"], groups: int, n: int) -> Int[Tensor, "rows candidates"]:
    """The elements of the chosen groups, and those that are in none."""
    even = n // groups * groups
    index = (chosen[:, None, :] + torch.arange(0, even, groups)[:, None]).flatten(1)
    if even == n:
        return index
    return torch.cat([index, torch.arange(even, n).expand(len(chosen), -1)], 1)


def how_many_groups(n: int, k: int) -> int | None:
    """Into how many groups to split n elements; None where splitting does not help."""
    if n <= max(_NARROW, 4 * k):
        return None
    size = 1
    while n // (2 * size) >= max(2 * k, 0.7 * math.sqrt(k * n)):
        size *= 2
    return None if size == 1 else n // size


def _largest(h: Tensor, k: int) -> Int[Tensor, "rows k"]:
    n = h.shape[1]
    groups = how_many_groups(n, k)
    if groups is None:
        return _directly(h, k)
    chosen = _largest(in_groups(h, groups)[0].amax(1), k)
    index = members(chosen, groups, n)
    return index.gather(1, _directly(h.gather(1, index), k))


def _directly(h: Tensor, k: int) -> Int[Tensor, "rows k"]:
    """Every element that reaches the k-th value, in ascending order; ties are left to torch."""
    rows, n = h.shape
    if k >= n or rows == 0:
        return torch.arange(n).expand(rows, -1)[:, :k]
    array = (h.float() if h.dtype == torch.bfloat16 else h).numpy()
    reached = array >= np.partition(array, n - k, axis=1)[:, n - k, None]
    hits = np.flatnonzero(reached)
    if len(hits) == rows * k:
        index = hits.reshape(rows, k) - np.arange(0, rows * n, n)[:, None]
        if index[:, 0].min() >= 0 and index[:, -1].max() < n:
            return torch.from_numpy(index)
    return _among_ties(h, torch.from_numpy(reached), k)


def _among_ties(h: Tensor, reached: Tensor, k: int) -> Int[Tensor, "rows k"]:
    """Rows where not exactly k elements reach the k-th value (ties, NaN) by torch.topk."""
    single = reached.sum(1) == k
    index = torch.empty(len(h), k, dtype=torch.long)
    index[single] = reached[single].nonzero()[:, 1].view(-1, k)
    index[~single] = h[~single].topk(k, dim=1, sorted=False).indices
    return index
