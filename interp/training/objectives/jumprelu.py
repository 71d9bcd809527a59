"""JumpReLU with an L0 penalty, by straight-through gradients (Rajamanoharan et al. 2024b).

Neither the jump nor the count of active features has a gradient for the threshold θ. Both are given
the one of a kernel estimate of their expectation, with a rectangle K of width ε (their eq. 11, 12):

    ∂ JumpReLU_θ(z) / ∂θ := −(θ/ε) K((z − θ)/ε)        ∂ H(z − θ) / ∂θ := −(1/ε) K((z − θ)/ε)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.activations import JumpReLU
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.part import Part
from interp.training.objectives.objective import Moment, Objective

__all__ = ["JumpReLUObjective"]


class _Jump(torch.autograd.Function):
    """``z·1[z > θ]``."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        moved = -(threshold / ctx.bandwidth) * (grad * near).sum(0)
        return grad * (z > threshold), moved, None


class _Count(torch.autograd.Function):
    """``1[z > θ]``, which has no gradient for z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        return None, -(grad * near).sum(0) / ctx.bandwidth, None


class JumpReLUObjective(Objective):
    """Penalty ``λ Σᵢ H(zᵢ − θᵢ)``: λ for each active feature."""

    def activate(
        self, part: Part, pre: Float[Tensor, "row d_sae"], moment: Moment
    ) -> Float[Tensor, "row d_sae"]:
        return _Jump.apply(pre.relu(), _threshold(part), self.config.bandwidth)

    def penalty(
        self,
        dictionary: Dictionary,
        pres: Sequence[Float[Tensor, "row d_sae"]],
        acts: Sequence[Float[Tensor, "row d_sae"]],
        y: Float[Tensor, "row width"],
        moment: Moment,
    ) -> dict[str, Tensor]:
        counts = [
            _Count.apply(pre, _threshold(part), self.config.bandwidth).sum()
            for pre, part in zip(pres, dictionary.parts, strict=True)
        ]
        return {"sparsity": moment.coefficient * torch.stack(counts).sum()}

    @torch.no_grad()
    def after(self, dictionary: Dictionary, picked: Any, seen: int) -> None:
        """Thresholds stay at 0 or above."""
        for part in dictionary.parts:
            _threshold(part).clamp_(min=0)


def _threshold(part: Any) -> Tensor:
    assert isinstance(part.activation, JumpReLU)
    return part.activation.threshold
