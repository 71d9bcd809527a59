"""Scores of attention heads: how much of its attention a head pays where its kind should.

All three are means of attention weights, so they lie in [0, 1]: 1 means that the head always
attends exactly where a previous-token, duplicate-token or induction head does, and a head which
attends evenly scores about one over the number of positions. The last two read rows of
``<bos>`` followed by ``period`` random tokens written twice: there position ``q`` of the second
copy holds the token of position ``q - period``.

Source: Olsson et al. 2022, "In-context Learning and Induction Heads", arXiv:2209.11895.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError

__all__ = ["duplicate_token_scores", "induction_scores", "previous_token_scores"]


def previous_token_scores(
    pattern: Float[Tensor, "batch head query key"],
) -> Float[Tensor, " head"]:
    """Mean attention from each token to the one before it.

    Queries at positions 0 and 1 do not count: ``<bos>`` has nothing before it, and the token
    after it may look there only because heads with nothing to do rest on ``<bos>``.

    >>> before = torch.eye(4).roll(-1, dims=1)  # row q has its 1 in column q - 1
    >>> previous_token_scores(before[None, None])
    tensor([1.])
    """
    if pattern.shape[-1] < 3:
        raise MetricError(
            f"previous-token scores need at least 3 positions, got {pattern.shape[-1]}; "
            "use longer rows"
        )
    return _mean_at_lag(pattern, lag=1, first=2)


def duplicate_token_scores(
    pattern: Float[Tensor, "batch head query key"], period: int
) -> Float[Tensor, " head"]:
    """Mean attention, in the second copy, to the same token in the first copy.

    Args:
        pattern: attention on rows of ``<bos>`` and ``period`` tokens written twice.
        period: the length of one copy.
    """
    _check_repeated(pattern, period)
    return _mean_at_lag(pattern, lag=period, first=period + 1)


def induction_scores(
    pattern: Float[Tensor, "batch head query key"], period: int
) -> Float[Tensor, " head"]:
    """Mean attention, in the second copy, to the token *after* the same token in the first.

    This is the prefix-matching score of Olsson et al.: the token attended to is the one that
    comes next.

    Args:
        pattern: attention on rows of ``<bos>`` and ``period`` tokens written twice.
        period: the length of one copy.
    """
    _check_repeated(pattern, period)
    return _mean_at_lag(pattern, lag=period - 1, first=period + 1)


def _mean_at_lag(
    pattern: Float[Tensor, "batch head query key"], *, lag: int, first: int
) -> Float[Tensor, " head"]:
    """Mean of ``pattern[..., q, q - lag]`` over the batch and over queries ``q >= first``."""
    diagonal = pattern.diagonal(offset=-lag, dim1=-2, dim2=-1)  # entry i is query i + lag
    return diagonal[..., first - lag :].mean(dim=(0, -1))


def _check_repeated(pattern: Float[Tensor, "batch head query key"], period: int) -> None:
    """Are these the patterns of ``<bos>`` and two copies of ``period`` tokens?"""
    expected = 1 + 2 * period
    if period < 2 or pattern.shape[-2:] != torch.Size((expected, expected)):
        raise MetricError(
            f"got patterns of {tuple(pattern.shape[-2:])} positions for period {period}; expected "
            f"rows of <bos> and two copies of the period, {expected} positions, period >= 2"
        )
