"""Attention sinks: does a head park its attention on one position, whatever the text?"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import as_rows

__all__ = ["importance", "sink_rate"]


def importance(
    pattern: Float[Tensor, "*heads q k"], *, normalised: bool = True
) -> Float[Tensor, "*heads k"]:
    """imp_k: attention to position k, averaged over the queries that can see it (those from k on).

    Args:
        pattern: causal attention, [q, k] last: rows that sum to 1 for softmax, any others else.
        normalised: rows are first divided by their sum (nothing changes for softmax), so that sigmoid
            attention is measured by where it goes. False: as it is.

    Source:
        Gu et al. 2024, "When attention sink emerges in language models", arXiv:2410.10781: importance
        score 1 / (T - k + 1) Σ_{i ≥ k} A_ik, with k counted from 1.

    Raises:
        MetricError: no square pattern, attention to later positions, or attention below 0 to be normalised.
    """
    rows = as_rows(pattern, "importance()", least=1)
    length = rows.shape[-1]
    if rows.shape[-2] != length or bool(rows.triu(1).any()):
        raise MetricError(
            f"importance() got an array of shape {list(rows.shape)}; expected causal patterns [*, q, k] "
            "with as many queries as keys and zeros above the diagonal."
        )
    if normalised:
        if bool((rows < 0).any()):
            raise MetricError(
                "importance() got attention below 0, as linear attention has it, and rows of both signs have no "
                "shares: give its absolute value, or normalised=False to take it as it is."
            )
        rows = rows / rows.sum(-1, keepdim=True).clamp(min=1e-30)
    seen = torch.arange(length, 0, -1, device=rows.device)
    return rows.sum(-2) / seen


def sink_rate(
    pattern: Float[Tensor, "*heads q k"],
    *,
    position: int = 0,
    eps: float = 0.3,
    normalised: bool = True,
) -> float:
    """Sink^ε: share of heads (and layers, and prompts) whose importance at a position exceeds ε.

    0 = no head sinks there; 1 = all do. It depends on the length: the paper takes 64 tokens and ε = .3,
    with which an even pattern has none (its importance at 0 is H_T / T, .07 for 64 tokens).

    Source:
        Gu et al. 2024, arXiv:2410.10781 (the sink metric).

    >>> sink_rate(torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]), eps=0.6)
    0.5
    """
    shares = importance(pattern, normalised=normalised)
    if not -shares.shape[-1] <= position < shares.shape[-1]:
        raise MetricError(
            f"sink_rate(position={position}): there are {shares.shape[-1]} positions."
        )
    found = shares[..., position]
    return float((found > eps).double().mean())
