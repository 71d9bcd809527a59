"""Reading directions in the vocabulary, any number of them in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import MetricError
from interp.progress import Bar

__all__ = ["Reading", "read"]

#: Logits that may lie in memory at once.
BLOCK = 1 << 24


@dataclass(frozen=True, eq=False)
class Reading:
    """The strongest tokens of each direction.

    Attributes:
        top_ids, top_logits, top_probs: tokens of the largest logits, largest first.
        bottom_ids, bottom_logits, bottom_probs: of the smallest, smallest first.
        kurtosis: excess kurtosis of a direction's logits over the vocabulary: 0 = as Gaussian,
            large = a few tokens stand out.
    """

    top_ids: Int[Tensor, "row k"]
    top_logits: Float[Tensor, "row k"]
    top_probs: Float[Tensor, "row k"]
    bottom_ids: Int[Tensor, "row k"]
    bottom_logits: Float[Tensor, "row k"]
    bottom_probs: Float[Tensor, "row k"]
    kurtosis: Float[Tensor, " row"]


def read(
    directions: Float[Tensor, "row d_model"],
    vocabulary: Float[Tensor, "d_model d_vocab"],
    *,
    top: int,
    bar: Bar | None = None,
) -> Reading:
    """The ``top`` tokens at both ends of each direction's logits ``directions @ vocabulary``.

    Raises:
        MetricError: ``top`` is not between 1 and the vocabulary's size.
    """
    width = vocabulary.shape[1]
    if not 1 <= top <= width:
        raise MetricError(f"top={top}; expected 1 to {width}, the vocabulary's size.")
    parts = []
    for block in directions.split(max(1, BLOCK // width)):
        parts.append(_block(block.to(vocabulary), vocabulary, top))
        if bar is not None:
            bar.advance(len(block))
    return Reading(*(torch.cat([part[i] for part in parts]).cpu() for i in range(7)))


def _block(directions: Tensor, vocabulary: Tensor, top: int) -> tuple[Tensor, ...]:
    logits = directions @ vocabulary
    norm = logits.logsumexp(-1, keepdim=True)
    high, low = logits.topk(top), logits.topk(top, largest=False)
    spread = logits - logits.mean(-1, keepdim=True)
    square = spread.square()
    variance = square.mean(-1)
    kurtosis = square.square().mean(-1) / variance.square().clamp(min=1e-30) - 3
    return (
        high.indices, high.values, (high.values - norm).exp(),
        low.indices, low.values, (low.values - norm).exp(), kurtosis,
    )  # fmt: skip
