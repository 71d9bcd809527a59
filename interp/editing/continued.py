"""A few more steps of training on prompts and their answers: a copy of a model with another habit.

Every weight is trained (AdamW) on the log-probability of each prompt's answer at its last token; nothing else
of the prompt is predicted. The model that was given stays as it is: what comes back is a copy. Dropout stays off.

:func:`interp.editing.finetune` is another thing: it changes one fact in one layer, within a bound.

Stopping early is part of the method where a habit is wanted and not its cure: ``measure`` is asked every few
steps and ``until`` decides.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError, RunError
from interp.models.model import Model
from interp.progress import Bar
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.execute import forward

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Continued", "continue_training"]

Measure = Callable[[Model], Mapping[str, float]]
Row = Mapping[str, float]


@dataclass(frozen=True, eq=False, repr=False)
class Continued:
    """A model after some more steps.

    Attributes:
        model: the trained copy, without gradients.
        history: a row for each measurement: ``step``, ``loss`` (nats, mean over the batches since
            the last row; NaN at step 0) and what ``measure`` gave.
        steps: how many were taken.
        provenance: the model it began with, the prompts and the call.
    """

    model: Model
    history: tuple[Row, ...]
    steps: int
    provenance: Provenance

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.3g}" for name, value in self.history[-1].items())
        return f"Continued({self.model.name!r}; {last})"

    def to_frame(self) -> DataFrame:
        """The history, one row a measurement."""
        import pandas as pd

        return pd.DataFrame(self.history).astype({"step": int})


@torch.inference_mode(False)  # a caller's would leave no gradients
def continue_training(
    model: Model,
    prompts: Prompts,
    *,
    steps: int,
    lr: float = 3e-4,
    batch: int = 32,
    weight_decay: float = 0.0,
    measure: Measure | None = None,
    every: int = 5,
    until: Callable[[Row], bool] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Continued:
    """Train a copy of a model on prompts and their answers.

    >>> tuned = continue_training(model, prompts, steps=40, measure=lambda m: {"A": ...},  # doctest: +SKIP
    ...                           until=lambda row: row["A"] > 0.98)
    >>> tuned.model                                                                 # doctest: +SKIP

    Args:
        prompts: with answers; of several answers to one prompt, their total probability counts.
        steps: the most that are taken.
        lr: AdamW's step; its β are (0.9, 0.98), as in the demo model's training.
        batch: prompts at a step, each seen once before any is seen again.
        weight_decay: AdamW's.
        measure: numbers about the model, asked before the first step, every few, and at the end.
        every: steps between two measurements.
        until: stop when this is true of a measurement's row (of the model as given, too).
        seed: of the order of the prompts.
        progress: as in :class:`interp.progress.Bar`.

    Raises:
        PromptError: prompts without answers.
        RunError: options out of range; a loss that is no longer finite; a measure called "step" or "loss".
    """
    if prompts.answers is None:
        raise PromptError("these prompts have no answers to train on: build them with answers=.")
    if steps < 1 or batch < 1 or every < 1 or not lr > 0:
        raise RunError(
            f"steps={steps}, batch={batch}, every={every}, lr={lr}: expected at least 1, and lr above 0."
        )
    origin = Provenance.of(
        model, prompts, seed=seed, verb="continue_training", steps=steps, lr=lr, batch=batch,
        weight_decay=weight_decay, every=every,
    )  # fmt: skip
    trained = _copied(model, f"{model.name} (trained on {prompts.name})")
    parameters = list(trained.hf.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    history, losses, step = [_row(trained, measure, 0, [])], [], 0
    drawn = _batches(len(prompts), min(batch, len(prompts)), seed)
    with Bar(total=steps, what="training", show=progress) as bar:
        while step < steps and not (until is not None and until(history[-1])):
            for parameter in parameters:
                parameter.requires_grad_(True)
            for _ in range(min(every, steps - step)):
                loss = _loss(trained, prompts, next(drawn))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                step += 1
                losses.append(float(loss.detach()))
                bar.advance()
            _rest(trained)
            if not math.isfinite(losses[-1]):
                raise RunError(f"the loss is no longer finite after {step} steps: lower lr={lr:g}.")
            history.append(_row(trained, measure, step, losses))
            losses = []
    return Continued(trained, tuple(history), step, origin)


def _copied(model: Model, name: str) -> Model:
    copied = Model.wrap(copy.deepcopy(model.hf), model.tokenizer, name=name)
    _rest(copied)
    return copied


def _rest(model: Model) -> None:
    """No gradients from here on."""
    for parameter in model.hf.parameters():
        parameter.grad = None
        parameter.requires_grad_(False)


def _row(model: Model, measure: Measure | None, step: int, losses: list[float]) -> Row:
    loss = sum(losses) / len(losses) if losses else math.nan
    found = {} if measure is None else {name: float(v) for name, v in measure(model).items()}
    if taken := sorted({"step", "loss"} & found.keys()):
        raise RunError(
            f"measure gave {taken[0]!r}, which is a column of the history: name it otherwise."
        )
    return {"step": float(step), "loss": loss, **found}


def _batches(n: int, size: int, seed: int) -> Iterator[Int[Tensor, " row"]]:
    """Rows in a random order, again and again."""
    generator, left = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    while True:
        if len(left) < size:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:size]
        left = left[size:]


def _loss(model: Model, prompts: Prompts, rows: Int[Tensor, " row"]) -> Float[Tensor, ""]:
    """Mean -log p(any of a prompt's answers), in nats."""
    assert prompts.answers is not None  # checked
    tokens = prompts.clean.rows(rows.tolist()).to(model.device)
    answers = prompts.answers[rows].to(model.device)
    with torch.enable_grad():
        logits = forward(model.anatomy, tokens)
        at = tokens.column(-1).to(logits.device)
        log_probs = (
            logits[torch.arange(len(rows), device=logits.device), at].float().log_softmax(-1)
        )
        own = log_probs.gather(1, answers.clamp(min=0)).masked_fill(answers < 0, -math.inf)
        return -own.logsumexp(-1).mean()
