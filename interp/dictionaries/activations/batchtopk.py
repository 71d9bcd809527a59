"""BatchTopK: k active features on average over a batch, not in each input (Bussmann et al. 2024).

While it is trained, the ``k · batch`` largest activations of a whole batch are kept. A finished
dictionary must treat each input alone: it keeps what exceeds one threshold, the average over training
of the smallest activation that was kept (their §3), and so is a JumpReLU. Matryoshka dictionaries
(Bussmann et al. 2025) differ in their loss alone.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.activations.activation import Activation
from interp.dictionaries.activations.topk import whole_k

__all__ = ["BatchTopK"]


class BatchTopK(Activation):
    """``max(pre, 0)`` where it exceeds the threshold that training has left."""

    name = "batchtopk"
    threshold: Tensor

    def __init__(self, d_sae: int, *, k: int) -> None:
        super().__init__()
        self.k = whole_k(k, d_sae)
        self.register_buffer("threshold", torch.zeros(()))

    def options(self) -> dict[str, Any]:
        return {"k": self.k}

    def forward(
        self, pre: Float[Tensor, "*rows d_sae"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*rows d_sae"]:
        return (pre > self.threshold) * pre.relu()
