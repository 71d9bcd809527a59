"""What every activation offers: feature activations from pre-activations."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Activation"]


class Activation(nn.Module):
    """Turns pre-activations into feature activations, which are never negative.

    What it does is what a finished dictionary does; how it is trained (which gradients, which
    penalty) stands in :mod:`interp.training.objectives`.
    """

    name: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """What to build it again from, beside ``d_sae``; JSON values."""
        return {}

    def forward(
        self, pre: Float[Tensor, "*rows d_sae"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*rows d_sae"]:
        """Feature activations.

        Args:
            pre: ``x @ W_enc + b_enc``.
            b_enc: the bias in it, for those that need the product without it.
        """
        raise NotImplementedError
