"""Hard-concrete gates: random numbers between 0 and 1, often exactly 0 or 1, that can be trained.

A binary concrete variable s = σ((log u - log(1 - u) + log α) / β), with u uniform, is stretched to
(γ, ζ) and cut off at 0 and 1, so that both ends have a mass of their own while gradients with
respect to log α pass between them. β = 2/3, γ = -0.1, ζ = 1.1.

Source: Louizos et al. 2018, arXiv:1712.01312, eqs. 10-13.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["at_rest", "open_chance", "sampled", "start_of", "uniforms"]

BETA: Final = 2 / 3
LOW: Final = -0.1
HIGH: Final = 1.1
_EDGE: Final = 1e-6


def sampled(
    log_alpha: Float[Tensor, " gate"], uniform: Float[Tensor, "*sample gate"]
) -> Float[Tensor, "*sample gate"]:
    """Gates for given uniform numbers, differentiable in ``log_alpha``."""
    s = torch.sigmoid((uniform.log() - (1 - uniform).log() + log_alpha) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def at_rest(log_alpha: Float[Tensor, " gate"]) -> Float[Tensor, " gate"]:
    """The gates without noise (eq. 13): above one half where ``log_alpha`` is above 0."""
    return (torch.sigmoid(log_alpha) * (HIGH - LOW) + LOW).clamp(0, 1)


def open_chance(log_alpha: Float[Tensor, " gate"]) -> Float[Tensor, " gate"]:
    """How likely each gate is not exactly 0 (eq. 12); the sum is the expected L0 norm."""
    return torch.sigmoid(log_alpha - BETA * math.log(-LOW / HIGH))


def start_of(gate: float) -> float:
    """The ``log_alpha`` at which the gate without noise has this value, inside (0, 1)."""
    share = (gate - LOW) / (HIGH - LOW)
    return math.log(share / (1 - share))


def uniforms(n_samples: int, n_gates: int, *, seed: int, step: int) -> Float[Tensor, "sample gate"]:
    """The noise of one step: the same for the same seed and step, on any device."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    drawn = torch.rand(n_samples, n_gates, generator=generator, dtype=torch.float64)
    return drawn.clamp(_EDGE, 1 - _EDGE)
