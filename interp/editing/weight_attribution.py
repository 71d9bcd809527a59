"""WAGLE: which weights to change, if something is to be forgotten and the rest kept?

Unlearning moves all weights; most of them have little to do with what is to go. WAGLE asks, for each weight i, how the
forget loss ℓ_f would move if that weight were set to 0 and the others then settled where the retain loss ℓ_r is least (a
bilevel problem). With the retain loss's Hessian taken as a constant γ on its diagonal the answer is closed:

    S_i = (θ_i - ∇_i ℓ_r / γ) · ∇_i ℓ_f

θ · ∇ℓ_f is the first-order effect of removing a weight (SNIP); the second term takes away what the retained data would
put there. It is small at a minimum of ℓ_r, and a γ of ∞ leaves it out; a γ far below |∇ℓ_r| / |θ| leaves nothing else, and
chooses weights that the retained data need as well (the empirical Fisher of a trained model is that small). The weights
with the largest |S| are the ones to train: a mask for any unlearning method
(:func:`interp.editing.unlearning.ascend` is the plainest).

Source: Jia et al. 2024, "WAGLE: strategic weight attribution for effective and modular unlearning in large language
models", arXiv:2410.17509, section 4, and the authors' code, whose score is |(θ - ∇ℓ_r / μ) · ∇ℓ_f|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.errors import ModelError, PromptError, RunError
from interp.metrics import evaluate
from interp.models.model import Model
from interp.progress import Bar
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.frozen import frozen

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "WeightAttribution",
    "chosen_parameters",
    "loss_of",
    "mask_top",
    "random_mask",
    "scores",
    "weight_attribution",
]

Masks = Mapping[str, Bool[Tensor, "..."]]


def scores(
    weight: Float[Tensor, "*any"], forget: Float[Tensor, "*any"], retain: Float[Tensor, "*any"], gamma: float
) -> Float[Tensor, "*any"]:  # fmt: skip
    """S = (θ - ∇ℓ_r / γ) · ∇ℓ_f, in the unit of the forget loss; its size says how much, its sign which way.

    Positive: removing the weight would lower the forget loss (keep what is to go), to first order.

    >>> scores(torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([0.5]), 0.5).item()
    3.0
    """
    if not gamma > 0:
        raise RunError(
            f"gamma={gamma!r}; expected a Hessian above 0 (float('inf') leaves the retained data out)."
        )
    return (weight - retain / gamma) * forget


def mask_top(found: Mapping[str, Tensor], share: float) -> dict[str, Bool[Tensor, "..."]]:
    """Which weights are among the top ``share`` of all by |score|, over all parameters together.

    Raises:
        RunError: no share above 0 and up to 1, or nothing to choose from.
    """
    total = sum(one.numel() for one in found.values())
    if not 0 < share <= 1 or not total:
        raise RunError(
            f"mask_top(share={share!r}) of {total} weights; expected a share above 0 and up to 1."
        )
    count = max(1, round(share * total))
    flat = torch.cat([one.flatten().abs() for one in found.values()])
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[flat.topk(count).indices] = True
    parts = mask.split([one.numel() for one in found.values()])
    return {name: part.view_as(one) for (name, one), part in zip(found.items(), parts, strict=True)}


def random_mask(masks: Masks, *, seed: int) -> dict[str, Bool[Tensor, "..."]]:
    """The null: as many weights of each parameter, drawn by ``seed``."""
    generator, out = torch.Generator().manual_seed(seed), {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        out[name] = mask.flatten()[order].view_as(mask)
    return out


@dataclass(frozen=True, eq=False, repr=False)
class WeightAttribution:
    """A score for each weight.

    Attributes:
        scores: S of each parameter, by its Hugging Face name and in its layout.
        gamma: the Hessian's constant.
        forget, retain: the two losses, in nats.
        provenance: model, prompts, versions and the call.
    """

    scores: Mapping[str, Float[Tensor, "..."]]
    gamma: float
    forget: float
    retain: float
    provenance: Provenance

    def __repr__(self) -> str:
        total = sum(one.numel() for one in self.scores.values())
        return (
            f"WeightAttribution({total:,} weights of {len(self.scores)} parameters; forget loss {self.forget:.3g}, "
            f"retain loss {self.retain:.3g} nats, γ {self.gamma:.3g})"
        )

    def mask(self, share: float) -> dict[str, Bool[Tensor, "..."]]:
        """The top ``share`` of all weights by |S|: see :func:`mask_top`."""
        return mask_top(self.scores, share)

    def to_frame(self, share: float = 0.05) -> DataFrame:
        """One row for each parameter: how many of its weights are in the mask, and its total |S|."""
        import pandas as pd

        masks = self.mask(share)
        return pd.DataFrame({
            "parameter": list(self.scores), "weights": [one.numel() for one in self.scores.values()],
            "chosen": [float(masks[name].double().mean()) for name in self.scores],
            "total": [float(one.abs().sum()) for one in self.scores.values()],
        })  # fmt: skip


@torch.inference_mode(False)  # a caller's would leave no gradients
def weight_attribution(
    model: Model, forget: Prompts, retain: Prompts, *, gamma: float,
    parameters: str | Sequence[str] = "*.weight", batch: int = 32, progress: bool | None = None,
) -> WeightAttribution:  # fmt: skip
    """S of the weights of some parameters; the model is as before afterwards.

    Args:
        forget, retain: prompts with answers; a loss is the mean of -log p(answer).
        gamma: the Hessian's constant, to be tuned as the authors do; ``float("inf")``: the forget term alone.
        parameters: patterns of Hugging Face names; matrices alone count.
        batch: prompts at a time.

    Raises:
        PromptError: prompts without answers.
        ModelError: no parameter of that name.
        RunError: γ not above 0.
    """
    for prompts in (forget, retain):
        if prompts.answers is None:
            raise PromptError(
                "weight_attribution() needs prompts with answers: build them with answers=."
            )
    chosen = chosen_parameters(model, parameters)
    with (
        frozen(model.hf),
        Bar(total=len(forget) + len(retain), what="gradients", show=progress) as bar,
    ):
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        loss_f, grad_f = _gradients(model, forget, chosen, batch, bar)
        loss_r, grad_r = _gradients(model, retain, chosen, batch, bar)
    made = {
        name: scores(parameter.detach(), grad_f[name], grad_r[name], gamma).cpu()
        for name, parameter in chosen.items()
    }
    origin = Provenance.of(
        model,
        forget,
        verb="weight_attribution",
        retain=retain.hash,
        gamma=gamma,
        parameters=list(chosen),
    )
    return WeightAttribution(made, float(gamma), loss_f, loss_r, origin)


def chosen_parameters(model: Model, patterns: str | Sequence[str]) -> dict[str, nn.Parameter]:
    """The model's matrices whose Hugging Face names match a pattern.

    Raises:
        ModelError: none does.
    """
    asked = [patterns] if isinstance(patterns, str) else list(patterns)
    named = {n: p for n, p in model.hf.named_parameters() if p.dim() > 1}
    found = {n: p for n, p in named.items() if any(fnmatchcase(n, one) for one in asked)}
    if not found:
        raise ModelError(
            f"no matrix of {model.name!r} is called {asked}; it has {', '.join(list(named)[:4])}, ..."
        )
    return found


def loss_of(model: Model, prompts: Prompts) -> Float[Tensor, ""]:
    """Mean -log p(answer) in nats, with its graph."""
    return -evaluate(
        "log_prob", model.run(prompts, grad=True, batch=len(prompts)).logits, prompts
    ).mean()


def _gradients(
    model: Model, prompts: Prompts, chosen: Mapping[str, nn.Parameter], batch: int, bar: Bar
) -> tuple[float, dict[str, Tensor]]:
    total, summed = 0.0, {name: torch.zeros_like(p) for name, p in chosen.items()}
    for start in range(0, len(prompts), batch):
        part = prompts.subset(slice(start, start + batch))
        loss = loss_of(model, part) * (len(part) / len(prompts))
        for name, one in zip(chosen, torch.autograd.grad(loss, list(chosen.values())), strict=True):
            summed[name] += one
        total += float(loss.detach())
        bar.advance(len(part))
    return total, summed
