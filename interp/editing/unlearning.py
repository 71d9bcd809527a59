"""Gradient ascent on some weights only: the plainest unlearning, for a mask that says which.

Each step raises the loss on what is to be forgotten, and only weights in the mask move:

    θ ← θ + lr · mask ⊙ ∇ℓ_f

With a mask of one column of one down projection it is the *Needle* of Hong et al. 2024 (arXiv:2406.11614), which removes a
concept vector itself; with WAGLE's (:mod:`interp.editing.weight_attribution`) it is localised unlearning. What it did to
what should stay must be measured beside it, and so must a random mask of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.editing.weight_attribution import loss_of
from interp.editing.weight_edit import WeightEdit
from interp.errors import ModelError, PromptError, RunError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.edits import Add, Scale
from interp.runs.frozen import frozen

__all__ = ["ascend", "column_masks"]


def column_masks(model: Model, places: Sequence[tuple[int, int]]) -> dict[str, Bool[Tensor, "..."]]:
    """Masks, by Hugging Face name and in its layout, of single columns (layer, neuron) of down projections.

    Raises:
        ModelError: no such column, or MLPs without one down projection.
    """
    masks: dict[str, Tensor] = {}
    for layer, column in places:
        if not (0 <= layer < model.n_layers and 0 <= column < (model.anatomy.d_mlp or 0)):
            raise ModelError(
                f"({layer}, {column}): {model.name!r} has no such column of a down projection."
            )
        down: Any = model.anatomy.blocks[layer].down
        weight = down.weight
        name = next(n for n, p in model.hf.named_parameters() if p is weight)
        mask = masks.setdefault(name, torch.zeros_like(weight, dtype=torch.bool))
        (mask if type(down).__name__ == "Conv1D" else mask.T)[column] = True
    return masks


@torch.inference_mode(False)  # a caller's would leave no gradients
def ascend(
    model: Model, forget: Prompts, masks: Mapping[str, Bool[Tensor, "..."]], *, lr: float, steps: int = 1,
    until: float | None = None,
) -> WeightEdit:  # fmt: skip
    """Compute an edit by gradient ascent on -log p(answer); the model is as before afterwards.

    Args:
        forget: prompts with answers.
        masks: Hugging Face name → which of its weights may move, in its layout.
        lr: step, in weights per unit of gradient: plain gradient ascent (Needle has .1 to .5).
        steps: of all ``forget`` at once.
        until: stop where the loss (nats) is above this.

    Returns:
        An edit that adds to each parameter. Its notes have the first and last loss, and the steps taken.

    Raises:
        PromptError: prompts without answers.
        ModelError: a mask for no parameter, or of another shape.
        RunError: ``lr`` or ``steps`` out of range, or a loss that is no longer finite.
    """
    if forget.answers is None:
        raise PromptError(
            "ascend() needs prompts with answers to forget: build them with answers=."
        )
    if steps < 1 or not lr > 0:
        raise RunError(f"steps={steps}, lr={lr}: expected at least 1, and lr above 0.")
    named = dict(model.hf.named_parameters())
    for name, mask in masks.items():
        if name not in named or named[name].shape != mask.shape:
            shape = list(named[name].shape) if name in named else "no such parameter"
            raise ModelError(f"a mask {list(mask.shape)} for {name!r}: {shape}.")
    moving = {name: named[name] for name in masks}
    origin = Provenance.of(
        model, forget, verb="ascend", lr=lr, steps=steps, until=until,
        masked={name: int(mask.sum()) for name, mask in masks.items()},
    )  # fmt: skip
    before = {name: p.detach().clone() for name, p in moving.items()}
    losses: list[float] = []
    with model.edited(dict.fromkeys(masks, Scale(1.0))), frozen(model.hf):  # put back at the end
        for parameter in moving.values():
            parameter.requires_grad_(True)
        for _ in range(steps):
            loss = loss_of(model, forget)
            losses.append(float(loss.detach()))
            if not torch.isfinite(loss):
                raise RunError(
                    f"the loss is no longer finite after {len(losses) - 1} steps: lower lr={lr:g}."
                )
            if until is not None and losses[-1] > until:
                break
            grads = torch.autograd.grad(loss, list(moving.values()))
            with torch.no_grad():
                for (name, parameter), grad in zip(moving.items(), grads, strict=True):
                    parameter.add_(lr * grad * masks[name].to(grad))
        with torch.no_grad():
            last = float(loss_of(model, forget))
        deltas = {name: Add(p.detach() - before[name]) for name, p in moving.items()}
    return WeightEdit(
        deltas, origin, {"first_loss": losses[0], "last_loss": last, "steps": len(losses)}
    )
