"""How the learning rate and the penalty's coefficient change over the steps."""

from __future__ import annotations

from interp.training.config import TrainConfig

__all__ = ["coefficient", "rate"]


def rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step (from 0): up to its height, level, and down to 0 at the end."""
    warm = config.lr_warmup or 0
    falling = round(config.lr_decay * config.steps)
    up = 1.0 if step >= warm else (step + 1) / warm
    down = 1.0 if falling == 0 else min(1.0, (config.steps - step) / falling)
    return config.rate * min(up, down)


def coefficient(config: TrainConfig, step: int) -> float:
    """The penalty's coefficient at a step."""
    if config.sparsity is None:
        return 0.0
    warm = config.sparsity_warmup or 0
    return config.sparsity * (1.0 if step >= warm else step / warm)
