"""The optimiser: Muon for every matrix but the token embedding, AdamW for everything else.

Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) makes every update of a matrix
orthogonal, so that all its directions are learned at one pace. On this corpus it knows the facts
after a few hundred steps where AdamW alone needs many more. The token embedding, whose rows are
read one at a time, and vectors keep AdamW.

The state goes in and out as a flat dictionary of tensors, which safetensors can hold.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.demo.recipe import Recipe

__all__ = ["Optimiser", "rate_at"]

#: The learning rate never falls below this share of its peak.
FLOOR = 0.02
CLIP = 1.0
BETAS = (0.9, 0.98)


def rate_at(recipe: Recipe, step: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, a plateau, a cosine down."""
    warm = min(1.0, (step + 1) / recipe.warmup)
    held = recipe.hold * recipe.steps
    fallen = max(0.0, (step - held) / (recipe.steps - held))
    return warm * max(FLOOR, 0.5 * (1 + math.cos(math.pi * fallen)))


class Optimiser:
    """Optimisers that step together on the schedule of a recipe."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe) -> None:
        self.recipe = recipe
        self.parameters = list(model.parameters())
        table = model.get_input_embeddings().weight
        matrices = [w for w in self.parameters if w.dim() == 2 and w is not table]
        vectors = [w for w in self.parameters if w.dim() == 1]
        decay = recipe.weight_decay
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": [table], "weight_decay": decay}], lr=1.0, betas=BETAS, fused=True
            ),
            torch.optim.AdamW(
                [{"params": vectors, "weight_decay": 0.0}], lr=1.0, betas=BETAS, fused=True
            ),
            torch.optim.Muon(matrices, lr=1.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        ]
        self.peaks = (recipe.learning_rate, recipe.vector_rate, recipe.muon_rate)

    def step(self, step: int) -> None:
        """Clip the gradients, update the weights at this step's rate, clear the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        share = rate_at(self.recipe, step)
        for part, peak in zip(self.parts, self.peaks, strict=True):
            for group in part.param_groups:
                group["lr"] = peak * share
            part.step()
            part.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Everything the optimisers remember, as ``part.parameter.name`` -> tensor."""
        return {
            f"{number}.{index}.{name}": value.clone()
            for number, part in enumerate(self.parts)
            for index, memory in part.state_dict()["state"].items()
            for name, value in memory.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        for number, part in enumerate(self.parts):
            memory: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                owner, index, name = key.split(".")
                if int(owner) == number:
                    memory.setdefault(int(index), {})[name] = value
            part.load_state_dict({**part.state_dict(), "state": memory})
