"""Training a demo model: from a recipe and a seed to a finished folder.

    1. plan     count steps, tokens, time and memory, and say so
    2. train    one batch a step; keep the early checkpoints that the recipe names
    3. finish   round to float16, measure the table, write the checkpoint and its datasheet

Everything random comes from the seed and the number of the step, so an interrupted run that is
resumed ends in the same bytes as one that was not. (The same bytes: on one machine, with one
number of threads; elsewhere sums may round differently.)
"""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

from interp.demo.architecture import build_model
from interp.demo.checkpoints import RunState, as_shipped, load_state, save_checkpoint, save_state
from interp.demo.corpus import IGNORED, batch
from interp.demo.datasheet import command, write_datasheet
from interp.demo.evaluation import Evaluation, evaluate, head_scores
from interp.demo.optimiser import Optimiser
from interp.demo.progress import Silent, TrainingProgress
from interp.demo.recipe import Recipe
from interp.demo.vocabulary import build_tokenizer
from interp.errors import CheckpointError, InterpError

__all__ = ["TrainingInterruptedError", "TrainingReport", "train_demo"]

STATE = "training-state.safetensors"
SAVE_EVERY = 500
QUICK_EVALUATION = 100


class TrainingInterruptedError(InterpError):
    """Training was stopped by Ctrl-C; its state is saved."""


@dataclass(frozen=True)
class TrainingReport:
    """What came out of a finished training.

    Attributes:
        out: the folder of the checkpoint.
        seed: source of the weights and of the corpus.
        recipe: what was trained.
        parameters: number of weights.
        vocabulary: number of tokens.
        seconds: wall time, over all its sittings.
        table: what the shipped float16 weights can do.
        untrained: the same for the model before its first step.
        heads: induction and previous-token score of every head, by layer.
        history: loss and a quick table along the way.
        sha256: of every weights file, by its path in ``out``.
    """

    out: Path
    seed: int
    recipe: Recipe
    parameters: int
    vocabulary: int
    seconds: float
    table: Evaluation
    untrained: Evaluation
    heads: dict[str, list[list[float]]]
    history: list[dict[str, int | float]]
    sha256: dict[str, str]


@dataclass
class _Run:
    """A training in progress: what is trained, and how far it is."""

    recipe: Recipe
    seed: int
    out: Path
    model: GPTNeoXForCausalLM
    tokenizer: PreTrainedTokenizerFast
    optimiser: Optimiser
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, int | float]] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)


def train_demo(
    out: Path,
    recipe: Recipe,
    *,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> TrainingReport:
    """Train a demo model and write it, its early checkpoints and its datasheet to ``out``.

    Ctrl-C finishes the step, saves the state and raises; call again with ``resume=True``.

    Args:
        out: a new folder, or that of the run to resume.
        recipe: size, corpus and optimiser; ``FULL`` or ``SMALL`` of ``recipe.py``, or your own.
        seed: source of everything random.
        resume: go on with the interrupted run in ``out``.
        progress: show the plan and a progress bar on the terminal.
        on_step: called with the number of steps done after each.

    Raises:
        CheckpointError: ``out`` holds a model already, or a run of another recipe or seed, or
            nothing to resume.
        TrainingInterruptedError: it was stopped; the message says how to go on.
    """
    with _threads(recipe.threads):
        run = _begin(Path(out), recipe, seed, resume)
        _train(run, on_step, progress)
        return _finish(run)


def _train(run: _Run, on_step: Callable[[int], None] | None, progress: bool) -> None:
    """All the steps that are left, unless somebody asks to stop."""
    recipe = run.recipe
    bar = _display(run) if progress else Silent()
    with bar, _stop_requests() as stopped:
        while run.step < recipe.total:
            started = time.perf_counter()
            if recipe.then is not None and run.step == recipe.steps:
                _renew(run)
            loss = _train_step(run)
            run.step += 1
            _look(run, loss)
            run.seconds += time.perf_counter() - started
            bar.advance(run.step, loss)
            if on_step:
                on_step(run.step)
            if stopped() and run.step < recipe.total:
                _save(run)
                raise TrainingInterruptedError(
                    f"stopped after step {run.step} of {recipe.total}; the state is saved. Go on "
                    f"with: {command(recipe, seed=run.seed, out=str(run.out))} --resume"
                )
            if run.step % SAVE_EVERY == 0:
                _save(run)


def _begin(out: Path, recipe: Recipe, seed: int, resume: bool) -> _Run:
    """A run at its first step, or where it was interrupted."""
    if (out / "config.json").exists():
        raise CheckpointError(
            f"{out} already holds a model; give the folder of a new one, or delete this one"
        )
    if not resume and (out / STATE).exists():
        raise CheckpointError(
            f"{out} holds an interrupted training; go on with it by resume (--resume), or delete "
            f"{out / STATE} to start anew"
        )
    tokenizer = build_tokenizer(context=recipe.context)
    model = build_model(recipe, vocabulary=len(tokenizer), seed=seed).train()
    run = _Run(recipe, seed, out, model, tokenizer, Optimiser(model, recipe))
    if resume:
        _restore(run)
    out.mkdir(parents=True, exist_ok=True)
    return run


def _display(run: _Run) -> TrainingProgress:
    """The terminal's display, with a step's time from one step that leaves no trace."""
    for _ in range(2):  # the first one is slower than all the others
        started = time.perf_counter()
        _loss(run).backward()
        run.model.zero_grad()
        seconds = time.perf_counter() - started
    return TrainingProgress(run.recipe, run.model, seconds_a_step=seconds, start=run.step)


def _stage(run: _Run) -> tuple[Recipe, int, int]:
    """The recipe at work, the step within it, and the seed of its corpus."""
    first = run.recipe
    if first.then is None or run.step < first.steps:
        return first, run.step, run.seed
    return first.then, run.step - first.steps, run.seed + first.steps


def _loss(run: _Run) -> Float[Tensor, ""]:
    """Next-token cross-entropy on the rows of the run's current step."""
    recipe, step, seed = _stage(run)
    rows, labels = batch(recipe, run.tokenizer, seed=seed, step=step)
    with _shortened(run, recipe.mixture_at(step).skip_last):
        logits = run.model(rows, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


@contextmanager
def _shortened(run: _Run, share: float) -> Iterator[None]:
    """Leave the last block out, in this share of the steps."""
    if random.Random(f"{run.seed}/{run.step}/skip").random() >= share:
        yield
        return
    last = run.model.gpt_neox.layers[-1]
    handle = last.register_forward_hook(lambda module, args, out: args[0])
    try:
        yield
    finally:
        handle.remove()


def _renew(run: _Run) -> None:
    """Begin the second recipe: weights as they would be stored, the last block at its start."""
    assert run.recipe.then is not None
    run.model.load_state_dict(as_shipped(run.model).state_dict())
    first = build_model(run.recipe, vocabulary=len(run.tokenizer), seed=run.seed)
    run.model.gpt_neox.layers[-1].load_state_dict(first.gpt_neox.layers[-1].state_dict())
    run.optimiser = Optimiser(run.model, run.recipe.then)


def _train_step(run: _Run) -> float:
    """One batch forward and back, one update; the loss."""
    loss = _loss(run)
    loss.backward()
    run.optimiser.step(_stage(run)[1])
    return loss.item()


def _look(run: _Run, loss: float) -> None:
    """At the recipe's steps: a quick table for the history, an early checkpoint."""
    if run.recipe.look_every and run.step % run.recipe.look_every == 0:
        run.model.eval()
        table = evaluate(run.model, run.tokenizer, n=QUICK_EVALUATION)
        run.model.train()
        run.history.append({"step": run.step, "loss": round(loss, 4), **table})
    if run.step in run.recipe.keep:
        name = f"checkpoints/step-{run.step:04d}"
        digest = save_checkpoint(run.out / name, run.model, run.tokenizer)
        run.sha256[f"{name}/model.safetensors"] = digest


def _finish(run: _Run) -> TrainingReport:
    """Write the checkpoint and its datasheet, measured as shipped; drop the state."""
    shipped = as_shipped(run.model)
    untrained = build_model(run.recipe, vocabulary=len(run.tokenizer), seed=run.seed)
    report = TrainingReport(
        out=run.out,
        seed=run.seed,
        recipe=run.recipe,
        parameters=shipped.num_parameters(),
        vocabulary=len(run.tokenizer),
        seconds=run.seconds,
        table=evaluate(shipped, run.tokenizer),
        untrained=evaluate(untrained, run.tokenizer),
        heads={
            kind: scores.tolist() for kind, scores in head_scores(shipped, run.tokenizer).items()
        },
        history=run.history,
        sha256=run.sha256
        | {"model.safetensors": save_checkpoint(run.out, run.model, run.tokenizer)},
    )
    write_datasheet(report)
    (run.out / STATE).unlink(missing_ok=True)
    return report


def _save(run: _Run) -> None:
    """Write all that is needed to go on."""
    known = {
        "step": run.step,
        "seconds": run.seconds,
        "seed": run.seed,
        "recipe": asdict(run.recipe),
        "history": run.history,
        "sha256": run.sha256,
    }
    save_state(run.out / STATE, RunState(known, run.model.state_dict(), run.optimiser.state()))


def _restore(run: _Run) -> None:
    """Put a run where its saved state was, if that is the same run."""
    state = load_state(run.out / STATE)
    asked = {"seed": run.seed, "recipe": json.loads(json.dumps(asdict(run.recipe)))}
    for name, value in asked.items():
        if state.facts[name] != value:
            raise CheckpointError(
                f"the training in {run.out} has {name} {state.facts[name]}, but {value} was asked "
                f"for; resume with the same {name}, or start anew in another folder"
            )
    for name in ("step", "seconds", "history", "sha256"):
        setattr(run, name, state.facts[name])
    run.model.load_state_dict(state.weights)
    if run.recipe.then is not None and run.step > run.recipe.steps:
        run.optimiser = Optimiser(run.model, run.recipe.then)
    run.optimiser.load_state(state.optimiser)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use this many threads, and put back what it used before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a request that the loop reads between steps.

    The second one stops at once, as usual. Outside the main thread, where Python delivers no
    signals, there is nothing to catch.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
