"""What a task is: something that draws batches from a generator."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from interp.errors import ToyError
from interp.toys.batch import Batch

__all__ = ["Task", "held_out"]


@runtime_checkable
class Task(Protocol):
    """A source of batches. All randomness comes from the generator that is given.

    Tasks that train on a fixed set of rows return those, whatever ``n``. A task may have ``test(n,
    generator)`` for rows that no training batch holds, and ``d_vocab`` or ``d_in``, ``d_out`` and
    ``n_ctx`` for :func:`interp.toys.transformer`. A frozen dataclass is best: its ``repr`` tells
    runs apart.
    """

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """``n`` training examples."""
        ...


def held_out(task: Task, n: int, seed: int) -> Batch:
    """Rows to measure on: of ``task.test`` where it has one, else fresh ones of ``task.batch``.

    Raises:
        ToyError: what was given is no task.
    """
    if not isinstance(task, Task):
        raise ToyError(
            f"{type(task).__name__} is no task; expected an object with batch(n, generator) -> Batch."
        )
    draw = getattr(task, "test", task.batch)
    found: Batch = draw(n, torch.Generator().manual_seed(seed))
    return found
