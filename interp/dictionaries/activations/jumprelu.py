"""JumpReLU: a threshold of its own for each feature (Rajamanoharan et al. 2024b)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.dictionaries.activations.activation import Activation

__all__ = ["JumpReLU"]


class JumpReLU(Activation):
    """``max(pre, 0)`` where ``pre > threshold``, else 0 (their eq. 2)."""

    name = "jumprelu"

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(d_sae))

    def forward(
        self, pre: Float[Tensor, "*rows d_sae"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*rows d_sae"]:
        return (pre > self.threshold) * pre.relu()
