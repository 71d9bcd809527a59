"""Gated: which features are active, and how strongly, are two questions (Rajamanoharan et al. 2024a).

The encoder's weights are shared. The gate asks ``pre > 0``; the magnitude is ReLU of the same product
scaled by exp(r_mag) and with a bias of its own (their eq. 6 and 7).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.dictionaries.activations.activation import Activation

__all__ = ["Gated"]


class Gated(Activation):
    """``1[pre > 0] · max((pre − b_enc)·exp(r_mag) + b_mag, 0)``; ``b_enc`` is the gate's bias."""

    name = "gated"

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.r_mag = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))

    def magnitude(
        self, pre: Float[Tensor, "*rows d_sae"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*rows d_sae"]:
        """How strongly each feature would be active if its gate were open."""
        return ((pre - b_enc) * self.r_mag.exp() + self.b_mag).relu()

    def forward(
        self, pre: Float[Tensor, "*rows d_sae"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*rows d_sae"]:
        return (pre > 0) * self.magnitude(pre, b_enc)
