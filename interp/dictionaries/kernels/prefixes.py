"""Matryoshka: entries split by the group of their features (Bussmann et al. 2025).

A prefix is all features below a boundary. Entries are split by group once; the reconstruction by a
prefix is the sum of its groups' parts, and a group's gradient the sum over all prefixes that have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.dictionaries.kernels.codes import Codes
from interp.errors import DictionaryError

__all__ = ["split_by_group"]


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
