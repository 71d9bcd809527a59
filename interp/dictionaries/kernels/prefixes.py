"""Matryoshka: features in groups, and the reconstruction by each number of groups (Bussmann et al. 2025).

A prefix is all features below a boundary. Entries are split by group once; the reconstruction by a
prefix is the sum of its groups' parts, and a group's gradient the sum over all prefixes that have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.sparse import backward, decode
from interp.errors import DictionaryError

__all__ = ["backward_prefixes", "decode_prefixes", "split_by_group"]


def split_by_group(codes: Codes, boundaries: Sequence[int]) -> list[Codes]:
    """The entries of each group, under their own feature numbers.

    Args:
        boundaries: where groups end, ascending; the last is ``d_sae``.

    Raises:
        DictionaryError: boundaries that do not ascend to ``d_sae``.
    """
    ends = list(boundaries)
    if not ends or ends[-1] != codes.d_sae or any(a >= b for a, b in zip([0, *ends], ends)):  # noqa: B905
        raise DictionaryError(
            f"boundaries={ends}; expected ascending feature numbers that end with d_sae={codes.d_sae}."
        )
    inner = torch.tensor(ends[:-1], dtype=torch.long, device=codes.features.device)
    group = torch.bucketize(codes.features, inner, right=True)
    rows, split = codes.rows(), []
    for i in range(len(ends)):
        own = group == i
        counts = torch.bincount(rows[own], minlength=len(codes))
        split.append(
            Codes(codes.values[own], codes.features[own], counts.cumsum(0) - counts, codes.d_sae)
        )
    return split


def decode_prefixes(
    groups: Sequence[Codes], dec: Float[Tensor, "d_sae width"]
) -> list[Float[Tensor, "rows width"]]:
    """The reconstruction by the first group, by the first two, … by all."""
    return list(accumulate((decode(codes, dec) for codes in groups), torch.add))


def backward_prefixes(
    groups: Sequence[Codes],
    x: Float[Tensor, "rows d_in"],
    gs: Sequence[Float[Tensor, "rows width"]],
    dec: Float[Tensor, "d_sae width"],
    *,
    d_enc: Float[Tensor, "d_sae d_in"],
    d_b_enc: Float[Tensor, " d_sae"],
    d_dec: Float[Tensor, "d_sae width"],
    add: bool = False,
) -> Float[Tensor, " d_sae"]:
    """As :func:`backward`, for ``gs[i] = ∂loss/∂(i-th prefix's reconstruction)``."""
    behind = list(accumulate(reversed(gs), torch.add))[::-1]
    sums = torch.zeros_like(d_b_enc)
    for i, (codes, g) in enumerate(zip(groups, behind, strict=True)):
        sums += backward(
            codes, x, g, dec, d_enc=d_enc, d_b_enc=d_b_enc, d_dec=d_dec, add=add or i > 0
        )
    return sums
