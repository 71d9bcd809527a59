"""One encoder with its decoder: all of an SAE or transcoder, one layer of a cross-layer transcoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.dictionaries.activations import Activation

__all__ = ["Part"]


class Part(nn.Module):
    """``activation(x @ encᵀ + b_enc)``, written by ``dec``.

    Both matrices have a row for each feature, so that what touches few features touches few rows.

    Attributes:
        enc: directions that are read.
        b_enc: encoder biases.
        dec: directions that are written: d_out numbers for each site that this part writes to.
        activation: the non-linearity with its parameters.
    """

    def __init__(self, d_in: int, d_sae: int, width: int, activation: Activation) -> None:
        super().__init__()
        self.enc = nn.Parameter(torch.zeros(d_sae, d_in))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.dec = nn.Parameter(torch.zeros(d_sae, width))
        self.activation = activation

    def pre(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_sae"]:
        """Pre-activations."""
        return torch.nn.functional.linear(x, self.enc, self.b_enc)

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_sae"]:
        """Feature activations."""
        return self.activation(self.pre(x), self.b_enc)
