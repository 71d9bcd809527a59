"""ReLU, trained with an L1 penalty (Bricken et al. 2023, "Towards Monosemanticity")."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.activations.activation import Activation

__all__ = ["ReLU"]


class ReLU(Activation):
    """``max(pre, 0)``."""

    name = "relu"

    def __init__(self, d_sae: int) -> None:
        super().__init__()

    def forward(
        self, pre: Float[Tensor, "*rows d_sae"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*rows d_sae"]:
        return pre.relu()
