"""What training shows on the terminal (on stderr): the plan before the first step, then a bar.

This is the one place in the package's training that writes to the terminal; a run without it is
silent.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import PreTrainedModel

from interp.demo.recipe import Recipe

__all__ = ["Silent", "TrainingProgress", "memory_needed", "plan"]


class Silent:
    """Shows nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *ignored: object) -> None:
        return None

    def advance(self, step: int, loss: float) -> None:
        """Show nothing."""


class TrainingProgress:
    """The plan, then a progress bar with loss and remaining time."""

    def __init__(
        self, recipe: Recipe, model: PreTrainedModel, *, seconds_a_step: float, start: int
    ) -> None:
        self.console = Console(stderr=True)
        self.console.print(plan(recipe, model, seconds_a_step=seconds_a_step, start=start))
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task("training", total=recipe.total, completed=start, loss=0.0)

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *ignored: object) -> None:
        self.bar.stop()

    def advance(self, step: int, loss: float) -> None:
        """Move the bar to ``step`` steps done."""
        self.bar.update(self.task, completed=step, loss=loss)


def plan(recipe: Recipe, model: PreTrainedModel, *, seconds_a_step: float, start: int = 0) -> str:
    """What training is about to do, in one paragraph."""
    parameters = sum(weight.numel() for weight in model.parameters())
    memory = memory_needed(recipe, parameters=parameters, vocabulary=model.config.vocab_size)
    steps = recipe.total - start
    return (
        f"Recipe {recipe.name!r}: {parameters / 1e6:.1f} million parameters, {steps} steps of "
        f"{recipe.rows * recipe.context} tokens, {steps * recipe.rows * recipe.context / 1e6:.1f} "
        f"million tokens. Expect about {max(1, round(steps * seconds_a_step / 60))} min "
        f"({seconds_a_step:.2f} s a step on this machine) and "
        f"{memory / 2**20:.0f} MiB on top of Python and its libraries."
    )


def memory_needed(recipe: Recipe, *, parameters: int, vocabulary: int) -> int:
    """Bytes that training takes on top of the idle program, roughly.

    Weights, gradients and what the optimisers remember take 16 bytes a parameter; the forward
    pass keeps, of every token, about 20 vectors of the model's width and 3 of the MLP's in each
    layer, and its logits three times.
    """
    numbers = recipe.layers * (20 * recipe.width + 3 * recipe.mlp) + 3 * vocabulary
    return 16 * parameters + 4 * recipe.rows * recipe.context * numbers
