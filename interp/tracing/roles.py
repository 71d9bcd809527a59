"""Tokens of different prompts under common names: first subject token, last token, and so on.

Source: Meng et al. 2022 (arXiv:2202.05262), figure 2 and their ``average_causal_effects``: six
groups. A token may stand in two of them: a subject of one token is its first and its last.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ROLES", "mean_by_role", "roles"]

#: In the order of the paper's figure.
ROLES: Final = (
    "first subject token", "middle subject tokens", "last subject token",
    "first subsequent token", "further tokens", "last token",
)  # fmt: skip


def roles(
    subject: Int[Tensor, "prompt 2"], n_real: Int[Tensor, " prompt"], width: int
) -> Bool[Tensor, "role prompt pos"]:
    """Which positions of each prompt play each role; some roles may have none.

    >>> roles(torch.tensor([[1, 1]]), torch.tensor([4]), 4)[[0, 2, 3, 5], 0].int()
    tensor([[0, 1, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1]], dtype=torch.int32)
    """
    at = torch.arange(width)[None]
    first, last, end = subject[:, :1], subject[:, 1:], n_real[:, None] - 1
    return torch.stack([
        at == first,
        (at > first) & (at < last),
        at == last,
        (at == last + 1) & (at <= end),
        (at > last + 1) & (at < end),
        at == end,
    ])  # fmt: skip


def mean_by_role(
    values: Float[Tensor, "kind layer pos prompt *sample"],
    members: Bool[Tensor, "role prompt pos"],
) -> Float[Tensor, "kind layer role prompt *sample"]:
    """The mean over each role's tokens in each prompt; NaN where a prompt has none."""
    weights = members.to(values.dtype)
    weights = weights / weights.sum(-1, keepdim=True)  # 0 / 0 is NaN: no such token
    clear = values.nan_to_num()
    unfinished = torch.einsum("klpn...,rnp->klrn...", values.isnan().to(values.dtype), weights)
    means = torch.einsum("klpn...,rnp->klrn...", clear, weights)
    return means.masked_fill(unfinished > 0, torch.nan)
