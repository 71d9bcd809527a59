"""How much each row's squared error counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.training.config import TrainConfig

__all__ = ["row_weights"]


def row_weights(config: TrainConfig, y: Float[Tensor, "row width"]) -> Float[Tensor, " row"]:
    """1, or 1/(‖y‖·width): the loss of Dunefsky et al. 2024, whose divisor is the unsquared norm."""
    if config.loss == "mse":
        return torch.ones_like(y[:, 0])
    return 1 / (y.norm(dim=-1).clamp(min=1e-8) * y.shape[1])
