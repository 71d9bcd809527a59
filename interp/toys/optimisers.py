"""Optimisers: the papers' constants as values, learning-rate schedules, and gradients kept orthogonal.

    AdamW(lr=..., betas=..., eps=..., weight_decay=..., schedule=..., row_decay=...)
        a callable from parameters to a torch optimiser: what ``train(optimiser=...)`` takes. The schedule
        and the row decay stand on torch's own step hooks and count by the optimiser's state, so that a
        resumed run goes on where it was.
    orthogonal_gradients(parameters)
        ⊥Grad: the part of each gradient that moves along its own weights is taken out. It is what
        ``train(gradient=...)`` takes: called between the backward pass and the step.

Why ⊥Grad: once a homogeneous network classifies all of its training set, its loss still falls as its
weights grow along themselves. That direction changes no prediction and ends in softmax collapse; without
it a network generalises sooner (Prieto et al. 2025, arXiv:2501.04697).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ToyError

__all__ = ["AdamW", "WarmupCosine", "orthogonal", "orthogonal_gradients", "row_decay_"]


def orthogonal(
    gradient: Float[Tensor, "*shape"], weight: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """g⊥ = g - (g·w / w·w) w, rescaled to the norm of g; all axes count as one vector.

    A weight of zero has no direction: its gradient stays as it is. A gradient along the weight has nothing
    orthogonal but rounding, which rescaling would blow up to ‖g‖: it becomes 0 (so does that of any weight
    that is a single number, and such a weight does not learn under ⊥Grad).

    Source:
        Prieto et al. 2025, arXiv:2501.04697 (⊥Grad); the authors' code rescales and adds 1e-30
        to the divisors, and takes each parameter tensor by itself, biases too.

    >>> orthogonal(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    tensor([0., 5.])
    """
    g, w = gradient.flatten(), weight.flatten()
    size = w @ w
    if not size > 0:
        return gradient.clone()
    across = g - (g @ w / size) * w
    length, rest = g.norm(), across.norm()
    if rest <= 8 * torch.finfo(g.dtype).eps * length:
        return torch.zeros_like(gradient)
    return (across * (length / rest)).view_as(gradient)


def orthogonal_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each parameter's gradient by :func:`orthogonal` of it, in place.

    Weights must be as they were when the gradients were taken; those without a gradient are left alone.
    """
    with torch.no_grad():
        for one in parameters:
            if one.grad is not None:
                one.grad.copy_(orthogonal(one.grad, one))


@dataclass(frozen=True)
class WarmupCosine:
    """A learning rate's factor at a step: up in a line, then down along half a cosine to a floor.

    factor(s) = min(1, (s + 1) / warmup) · max(floor, (1 + cos(π s / steps)) / 2)

    >>> [round(WarmupCosine(100, warmup=10, floor=0.1)(s), 3) for s in (0, 9, 50, 99)]
    [0.1, 0.98, 0.5, 0.1]

    Args:
        steps: after which the cosine is at its end; later steps have the floor.
        warmup: steps; 0 for none.
        floor: least factor of the cosine, 0 to 1.
    """

    steps: int
    warmup: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup < 0 or not 0 <= self.floor <= 1:
            raise ToyError(
                f"{self}: expected steps ≥ 1, warmup ≥ 0 and a floor from 0 to 1 (a factor of the "
                "learning rate)."
            )

    def __call__(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return rise * max(self.floor, fall)


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with constants: ``AdamW(lr=0.01)(model.parameters())``.

    Constants of the papers:

    ===========================  =====================================================================
    Doshi et al. 2023            ``AdamW(lr=0.01, betas=(0.9, 0.98), weight_decay=10.0)``, full batch
    Prieto et al. 2025           ``AdamW(lr=0.01, betas=(0.9, 0.99), eps=1e-25)``, no decay, full batch
    Baek et al. 2025 (harmonic)  ``AdamW(lr=0.002, weight_decay=0.01)``
    Liu et al. 2025              ``AdamW(lr=0.01, schedule=WarmupCosine(...), row_decay=-1.0)``
    ===========================  =====================================================================

    Attributes:
        lr: step size.
        betas: decay of the moments.
        eps: added to the root of the second moment. Prieto et al. take 1e-25, so that vanishing
            gradients still move the weights.
        weight_decay: decoupled; each step takes lr · weight_decay of each weight away.
        schedule: factor of ``lr`` at a step (from 0); None: 1.
        row_decay: γ of :func:`row_decay_`, for each matrix after each step; 0: none.

    Raises:
        ToyError: numbers out of range.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Callable[[int], float] | None = None
    row_decay: float = 0.0

    def __post_init__(self) -> None:
        right = all(0 <= beta < 1 for beta in self.betas) and len(self.betas) == 2
        if not (self.lr > 0 and right and self.eps > 0 and self.weight_decay >= 0):
            raise ToyError(
                f"{self}: expected lr > 0, two betas from 0 to 1, eps > 0 and weight_decay ≥ 0. Decay "
                "towards rows of norm 1 is row_decay below 0."
            )

    def __call__(self, params: Iterable[Any]) -> torch.optim.Optimizer:
        """An optimiser of these parameters (tensors or groups, as torch takes them)."""
        made = torch.optim.AdamW(
            params, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )
        if (schedule := self.schedule) is not None:
            made.register_step_pre_hook(lambda own, *_: _set_lr(own, self.lr, schedule))
        if self.row_decay:
            made.register_step_post_hook(lambda own, *_: _decay_rows(own, self.row_decay))
        return made


@torch.no_grad()
def row_decay_(weight: Float[Tensor, "rows d"], gamma: float, lr: float) -> None:
    """Decay of rows, in place: w ← w - lr γ w where γ ≥ 0, and w ← w + lr |γ| w (1/‖w‖ - 1) below.

    γ above 0 pulls rows to zero, so that few features are kept; below 0 it pulls each row to norm 1 from
    either side, so that all are: it sets how much superposition there is.

    Source:
        Liu, Liu & Gore 2025, "Superposition yields robust neural scaling", arXiv:2505.10465.
    """
    if gamma >= 0:
        weight.mul_(1 - lr * gamma)
    else:
        norm = weight.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        weight.mul_(1 + lr * -gamma * (1 / norm - 1))


def _set_lr(optimiser: torch.optim.Optimizer, lr: float, schedule: Callable[[int], float]) -> None:
    rate = lr * schedule(_steps(optimiser))
    for group in optimiser.param_groups:
        group["lr"] = rate


def _steps(optimiser: torch.optim.Optimizer) -> int:
    """Steps taken so far: of the optimiser's own state, which a resumed run has again."""
    counts = [int(state["step"]) for state in optimiser.state.values() if "step" in state]
    return max(counts, default=0)


def _decay_rows(optimiser: torch.optim.Optimizer, gamma: float) -> None:
    for group in optimiser.param_groups:
        for one in group["params"]:
            if one.ndim == 2:
                row_decay_(one, gamma, group["lr"])
