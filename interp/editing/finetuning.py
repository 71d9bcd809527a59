"""Constrained fine-tuning: the plain way to change a fact, and the baseline of ROME.

Adam on the down projections of one MLP, or of a window of them, with no weight moving further than
ε from where it was (Zhu et al. 2020, arXiv:2012.00363; FT+L in Meng et al. 2022). ε = 1e-4 for one
layer and 5e-5 for a window, as in Hase et al. 2023. These numbers are for GPT-J: a smaller model
has larger weights and fewer of them, and may need a larger ε before anything is rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interp.editing.rank_one import as_json, described, prompt_text
from interp.editing.request import Request, Target
from interp.editing.value import logits_of, target_loss
from interp.editing.weight_edit import WeightEdit
from interp.errors import ModelError, PromptError, RunError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.edits import Add, Scale
from interp.runs.frozen import frozen

__all__ = ["FineTuning", "finetune"]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """The numbers of constrained fine-tuning.

    Attributes:
        norm: ``"linf"``: no weight moves further than ε; ``"l2"``: no matrix, in Frobenius norm;
            None: no bound.
        epsilon: the bound, in the unit of the weights; None: 1e-4 for one layer, 5e-5 for several.
            A weight in half precision is trained in float32, and rounded after the bound.
        lr: Adam's step.
        steps: losses looked at; one step fewer is taken.
        stop: loss below which training stops.
    """

    norm: Literal["linf", "l2"] | None = "linf"
    epsilon: float | None = None
    lr: float = 5e-4
    steps: int = 25
    stop: float = 1e-2

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2", None):
            raise RunError(f"FineTuning(norm={self.norm!r}): expected 'linf', 'l2' or None.")
        bad = self.epsilon is not None and not self.epsilon > 0
        if bad or not self.lr > 0 or self.steps < 1 or self.stop < 0:
            raise RunError(
                f"FineTuning(epsilon={self.epsilon}, lr={self.lr}, steps={self.steps}, "
                f"stop={self.stop}): epsilon and lr must be above 0, steps at least 1, stop at least "
                "0."
            )


@torch.inference_mode(False)  # a caller's would leave no gradients
def finetune(
    model: Model,
    prompts: str | Prompts | Sequence[str],
    targets: Target | Sequence[Target],
    *,
    layer: int | Sequence[int],
    config: FineTuning | None = None,
    subjects: str | Sequence[str] | None = None,
    prefixes: Sequence[str] = (),
) -> WeightEdit:
    """Compute an edit by fine-tuning; the model is as before afterwards.

    Args:
        prompts: one text or several.
        targets: what to say after each: as for :func:`interp.editing.rome`. Several for several
            prompts.
        layer: whose down projection to train, or a window of layers.
        config: the method's numbers.
        subjects: needed only where an Objective has noise.
        prefixes: texts to put before each prompt, beside the prompt alone.

    Returns:
        An edit that adds to each ``L{layer}.W_out``. Its notes hold the last loss, the steps and the
        largest change of a weight.

    Raises:
        PromptError: as many targets as prompts are expected; a target does not continue its prompt.
        ModelError: no such layer, or an MLP without a down projection.
        RunError: a loss that is no longer finite.
    """
    config = config or FineTuning()
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    _check_layers(model, layers)
    texts, goals, names = _aligned(prompts, targets, subjects)
    requests = [
        Request.of(model, text, name, goal, prefixes=prefixes)
        for text, goal, name in zip(texts, goals, names, strict=True)
    ]
    epsilon = config.epsilon or (1e-4 if len(layers) == 1 else 5e-5)
    origin = Provenance.of(
        model, verb="finetune", prompts=texts, subjects=names, layers=list(layers),
        targets=[described(goal) for goal in goals], config=as_json(config), epsilon=epsilon,
        prefixes=list(prefixes),
    )  # fmt: skip
    sites = [f"L{index}.W_out" for index in layers]
    before = [_copy(model, index) for index in layers]
    with model.edited(dict.fromkeys(sites, Scale(1.0))), frozen(model.hf):  # put back at the end
        notes = _train(model, requests, layers, config, epsilon)
        deltas = [_copy(model, index) - old for index, old in zip(layers, before, strict=True)]
    notes["largest_change"] = max(float(delta.abs().max()) for delta in deltas)
    return WeightEdit(dict(zip(sites, map(Add, deltas), strict=True)), origin, notes)


def _train(
    model: Model,
    requests: Sequence[Request],
    layers: Sequence[int],
    config: FineTuning,
    epsilon: float,
) -> dict[str, float]:
    notes: dict[str, float] = {}
    with _trained(model, layers) as parameters:
        start = [_wide(p) for p in parameters]
        moved = [old.clone() for old in start]
        optimiser = torch.optim.Adam(moved, lr=config.lr)
        for step in range(config.steps):
            total = 0.0
            for request in requests:  # one at a time: their graphs need not fit together
                with torch.enable_grad():
                    loss = target_loss(logits_of(model.anatomy, request), request) / len(requests)
                loss.backward()
                total += float(loss.detach())
            if not math.isfinite(total):
                raise RunError(
                    f"the loss is no longer finite after {step} steps: lower lr={config.lr:g}, or "
                    "look at the model's weights."
                )
            notes = {"loss": total, "steps": step}
            if total < config.stop or step == config.steps - 1:
                break
            for weight, parameter in zip(moved, parameters, strict=True):
                weight.grad = None if parameter.grad is None else _wide(parameter.grad)
                parameter.grad = None
            optimiser.step()
            for weight, parameter, old in zip(moved, parameters, start, strict=True):
                _bound(weight, old, config.norm, epsilon)
                parameter.detach().copy_(weight)
    return notes


@torch.no_grad()
def _bound(weight: Tensor, old: Tensor, norm: str | None, epsilon: float) -> None:
    """Bring a weight back to within ε of where it was."""
    if norm == "linf":
        weight.copy_(torch.clamp(weight, min=old - epsilon, max=old + epsilon))
    elif norm == "l2":
        change = weight - old
        weight.copy_(old + change * (epsilon / change.norm()).clamp(max=1))


@contextmanager
def _trained(model: Model, layers: Sequence[int]) -> Iterator[list[nn.Parameter]]:
    """The down projections of some layers, with gradients; ``.grad`` comes back as it was."""
    modules: list[Any] = [model.anatomy.blocks[index].down for index in layers]
    parameters: list[nn.Parameter] = [module.weight for module in modules]
    grads = [p.grad for p in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.requires_grad_(False)
            parameter.grad = grad


def _copy(model: Model, layer: int) -> Tensor:
    return _wide(model.weights.layer(layer).W_out)


def _wide(w: Tensor) -> Tensor:
    """A copy in float32 or better."""
    return w.detach().clone().to(torch.promote_types(w.dtype, torch.float32))


def _check_layers(model: Model, layers: Sequence[int]) -> None:
    wrong = [index for index in layers if index not in range(model.n_layers)]
    if wrong or not layers or len(set(layers)) < len(layers):
        raise ModelError(
            f"layer={list(layers)}: expected different layers from 0 to {model.n_layers - 1}."
        )


def _aligned(
    prompts: str | Prompts | Sequence[str],
    targets: Any,
    subjects: str | Sequence[str] | None,
) -> tuple[list[str], list[Target], list[str | None]]:
    """Prompts, targets and subjects as lists of one length."""
    if isinstance(prompts, str):
        texts, goals = [prompts], [targets]
    else:
        several = isinstance(prompts, Prompts)
        texts = (
            [prompt_text(prompts.subset([i])) for i in range(len(prompts))]  # type: ignore[union-attr]
            if several
            else list(prompts)  # type: ignore[arg-type]
        )
        goals = list(targets) if isinstance(targets, Sequence) else [targets]
    names: list[str | None] = [None] * len(texts)
    if subjects is not None:
        names = [subjects] if isinstance(subjects, str) else list(subjects)
    if (
        (isinstance(targets, str) and len(texts) > 1)
        or not texts
        or {len(texts)} != {len(goals), len(names)}
    ):
        raise PromptError(
            f"there are {len(texts)} prompts, {len(goals)} targets and {len(names)} subjects: "
            "expected one target (and subject) for each prompt."
        )
    return texts, goals, names
