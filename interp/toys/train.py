"""Training a toy, with interventions inside the training forward.

Singh et al. 2024 ("What needs to go right for an induction head?", arXiv:2404.07129, section 4) ask what a
subcircuit is for *during learning* by clamping it: some activations are set to the values that a perfect
subcircuit would give, in every forward pass of training, and gradients train what is left. Here a clamp is
a function from a batch to edits by site, and the edits go through the taps that every other run of this
library uses:

    clamp = lambda batch: {"L0.pattern": Replace(previous_token(5))}
    train(toy, task, steps=2000, clamp=clamp)

A replaced tensor carries no gradient into what would have made it.

1. Draw a batch from the generator of ``seed``; run the model (clamped); take the loss at scored positions.
2. Every ``every`` steps write a row of the history, *before* the update: row s is the model after s updates.
3. Backward, ``gradient`` (which may change gradients), step.

Training is deterministic: the same seed gives the same bits on the same machine, also when it was
interrupted and goes on from the folder ``out``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from interp.errors import ToyError, nearest
from interp.progress import Bar
from interp.runs.edits import Edit
from interp.toys import losses
from interp.toys.batch import Batch
from interp.toys.interrupts import interrupts
from interp.toys.record import Measure, ToyRun, module_of
from interp.toys.state import State, as_setup
from interp.toys.task import Task, held_out

__all__ = ["Clamp", "Readout", "accuracy", "outputs", "train"]

Clamp = Callable[[Batch], Mapping[str, Edit]]
Loss = Callable[[Tensor, Tensor], Tensor]

_SMOOTHING: Final = 0.05
_LOSSES: Final[dict[str, Loss]] = {
    "cross_entropy": losses.cross_entropy,
    "stablemax_cross_entropy": losses.stablemax_cross_entropy,
    "mse": losses.mse,
}
_OPTIMISERS: Final[dict[str, Any]] = {  # fused: a toy has many small parameters
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "sgd": torch.optim.SGD,
}
_COLUMNS: Final = frozenset({"step", "loss", "smoothed"})
_TEST_SEED: Final = 1_000_003  # of the rows to measure on: none of a training run's own


@dataclass(frozen=True)
class Readout:
    """Logits made from what a run saved, in place of the model's own.

    Attributes:
        save: the sites that it reads.
        logits: what was saved, by those names, and the batch → logits ``[batch, d_out]``.
    """

    save: tuple[str, ...]
    logits: Callable[[Mapping[str, Tensor], Batch], Tensor]


def outputs(
    model: Any,
    batch: Batch,
    *,
    clamp: Clamp | None = None,
    readout: Readout | None = None,
    grad: bool = False,
) -> Tensor:
    """What a model answers to a batch, under a clamp and by a readout if there are any.

    Returns:
        ``[batch, pos, d_out]`` of a toy transformer, ``[batch, d_out]`` of a readout, what its
        forward gives of any other module.

    Raises:
        ToyError: a clamp or readout with a module that has no sites.
    """
    if not hasattr(model, "hf"):
        if clamp is not None or readout is not None:
            raise ToyError(
                f"a {type(model).__name__} has no sites, so nothing of it can be clamped or read out; "
                "expected a Toy (interp.toys.transformer)."
            )
        with torch.set_grad_enabled(grad):
            out: Tensor = model(batch.inputs)
        return out
    run = model.run(
        batch.inputs, save=() if readout is None else readout.save,
        edit={} if clamp is None else clamp(batch), grad=grad,
        logits="all" if readout is None else "none",
    )  # fmt: skip
    if readout is None:
        return run.logits
    with torch.set_grad_enabled(grad):
        return readout.logits(run.saved, batch)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of scored positions whose largest logit is the target's: 0 to 1.

    Raises:
        ToyError: targets that are no class ids, as those of a regression.
    """
    if targets.is_floating_point() or targets.shape != logits.shape[:-1]:
        raise ToyError(
            f"accuracy() got outputs {list(logits.shape)} and targets {list(targets.shape)} of "
            f"{targets.dtype}; expected class ids, one for each row of outputs. Measure 'loss' instead."
        )
    return (logits.argmax(-1) == targets).double().mean()


def train(
    model: Any,
    task: Task,
    *,
    steps: int,
    batch: int = 64,
    lr: float = 1e-3,
    optimiser: Literal["adam", "adamw", "sgd"] | Callable[[Any], torch.optim.Optimizer] = "adam",
    loss: Literal["cross_entropy", "stablemax_cross_entropy", "mse"] | Loss = "cross_entropy",
    clamp: Clamp | None = None,
    readout: Readout | None = None,
    forward: Callable[[Any, Batch], Tensor] | None = None,
    gradient: Callable[[list[nn.Parameter]], None] | None = None,
    measure: Mapping[str, Literal["loss", "accuracy"] | Measure] | None = None,
    every: int | None = None,
    test: int = 512,
    until: Callable[[Mapping[str, float]], bool] | None = None,
    checkpoints: Sequence[int] = (),
    out: str | Path | None = None,
    save_every: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> ToyRun:
    """Train a toy in place.

    Args:
        model: a :class:`~interp.toys.Toy`, or any torch module that maps ``batch.inputs`` to outputs.
        task: where batches come from.
        steps: updates to do.
        batch: examples of a step (tasks with a fixed training set give all of it).
        optimiser: a name, which ``lr`` goes with, or a function from the trainable parameters to a torch
            optimiser, which then has its own rate.
        loss: a name, or a function of the outputs and targets at scored positions (:meth:`Batch.scored`).
        clamp: batch → edits by site, in every forward pass of training (Toys only).
        readout: logits from saved sites in place of the model's own (Toys only).
        forward: (model, batch) → outputs, in place of the forward pass with ``clamp`` and ``readout``,
            for what needs several passes; it is called with gradients on.
        gradient: called with the trainable parameters between backward and the update; it may
            change their ``.grad`` in place.
        measure: name → (model, held-out batch) → number, called without gradients; ``"loss"`` and
            ``"accuracy"`` are those of the held-out batch under the training forward.
        every: steps between rows of the history; a hundredth of ``steps`` by default.
        test: held-out rows to measure on.
        until: asked with each row; True ends the run there.
        checkpoints: steps after which the weights are kept (:meth:`ToyRun.at`).
        out: a folder; the run's state is written there every ``save_every`` steps, at checkpoints and
            at the end, and the same call goes on from it.
        seed: of the batches. The initial weights are the model's own.
        progress: None shows a bar where a person can see it.

    Returns:
        A :class:`ToyRun`; after Ctrl-C one that is not ``finished``, with what was done.

    Raises:
        ToyError: options that do not go together or are out of range, a measure with the name of
            another column, nothing to train, a loss that is not finite, or ``out`` holding another run.
    """
    module = module_of(model)
    parameters = [p for p in module.parameters() if p.requires_grad]
    _expect(parameters, steps, batch, every, test, measure or {})
    if forward is not None and (clamp is not None or readout is not None):
        raise ToyError("forward= was given with clamp= or readout=: forward does all of it itself.")
    score = _named(loss, _LOSSES, "loss")
    make = _named(optimiser, _OPTIMISERS, "optimiser")
    stepper = make(parameters, lr=lr) if isinstance(optimiser, str) else make(parameters)
    every = every or max(1, steps // 100)
    setup = as_setup(
        module, task=task, batch=batch, lr=lr, optimiser=optimiser, loss=loss, clamp=clamp,
        readout=readout, forward=forward, gradient=gradient, every=every, test=test, seed=seed,
        measure=dict(measure or {}),
    )  # fmt: skip
    device = next(module.parameters()).device
    ask = forward or _asked(clamp, readout)
    held = held_out(task, test, _TEST_SEED + seed).to(device) if measure else None
    state = State.begin(module, stepper, seed, setup, None if out is None else Path(out))
    if state.step > steps:
        raise ToyError(
            f"{str(out)!r} holds this run after {state.step} steps, more than steps={steps}: give that many, "
            "and take earlier weights from checkpoints=, or give another folder."
        )
    with (
        _training(module),
        torch.enable_grad(),
        interrupts() as interrupted,
        Bar(total=steps, what="train", show=progress, least=1000) as bar,
    ):
        bar.advance(state.step)
        while not state.met:
            mark = state.mark()
            rows = task.batch(batch, state.generator)
            rows = rows if device.type == "cpu" else rows.to(device)
            value = score(*rows.scored(ask(model, rows)))
            now = _finite(value, state.step)
            smoothed = state.smooth(now, _SMOOTHING)
            if state.step in checkpoints:
                state.keep(module)
            if state.step % every == 0 or state.step == steps:
                row = {"step": float(state.step), "loss": now, "smoothed": smoothed}
                row |= _measured(measure or {}, model, held, ask, score)
                state.write(row)
                state.met = until is not None and bool(until(row))
            if state.met or state.step >= steps or interrupted:
                state.back_to(mark)
                break
            stepper.zero_grad(set_to_none=True)
            value.backward()
            if gradient is not None:
                gradient(parameters)
            stepper.step()
            increment_version(parameters)  # fused steps do not: a model's hash would not notice
            state.step += 1
            bar.advance()
            if state.step % save_every == 0 or state.step in checkpoints:
                state.save(module, stepper)
    if state.stands != state.saved:
        state.save(module, stepper)
    finished = state.met or state.step >= steps
    return ToyRun(model, state.history, state.kept, finished, state.step, setup)


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    """Training mode; afterwards, also after an error, the mode that was, and no gradients."""
    before = module.training
    module.train()
    try:
        yield
    finally:
        module.train(before)
        module.zero_grad(set_to_none=True)


def _expect(
    parameters: list[nn.Parameter], steps: int, batch: int, every: int | None, test: int,
    measure: Mapping[str, Any],
) -> None:  # fmt: skip
    if not parameters:
        raise ToyError("the model has no parameter with requires_grad: there is nothing to train.")
    if steps < 0 or min(batch, test, 1 if every is None else every) < 1:
        raise ToyError(
            f"steps={steps}, batch={batch}, every={every}, test={test}: expected steps ≥ 0, the others ≥ 1."
        )
    if taken := sorted(_COLUMNS & measure.keys()):
        raise ToyError(
            f"measure has {taken[0]!r}, and the history has such a column already (of the training batches): "
            f"give another name, such as 'held-out {taken[0]}'."
        )


def _named(given: Any, known: Mapping[str, Any], what: str) -> Any:
    if callable(given):
        return given
    if given not in known:
        raise ToyError(f"{what}={given!r}; nearest: {nearest(str(given), known)}.")
    return known[given]


def _asked(clamp: Clamp | None, readout: Readout | None) -> Callable[[Any, Batch], Tensor]:
    def ask(model: Any, rows: Batch) -> Tensor:
        return outputs(model, rows, clamp=clamp, readout=readout, grad=torch.is_grad_enabled())

    return ask


def _finite(value: Tensor, step: int) -> float:
    number = float(value.detach())
    if number - number != 0:
        raise ToyError(
            f"the loss is {number} after {step} steps: training diverged. Lower lr, or look at the "
            "run up to there with until=."
        )
    return number


@torch.no_grad()
def _measured(
    measure: Mapping[str, Any], model: Any, held: Batch | None, ask: Any, score: Loss
) -> dict[str, float]:
    if held is None:
        return {}
    module = module_of(model)
    before = module.training
    module.eval()
    try:
        scored = (
            held.scored(ask(model, held))
            if any(isinstance(one, str) for one in measure.values())
            else None
        )
        found = {}
        for name, one in measure.items():
            if isinstance(one, str):
                assert scored is not None
                fn = _named(one, {"loss": score, "accuracy": accuracy}, f"measure {name!r}")
                found[name] = float(fn(*scored))
            else:
                found[name] = float(one(model, held))
        return found
    finally:
        module.train(before)
