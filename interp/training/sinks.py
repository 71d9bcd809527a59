"""Where a run's numbers go beside its own log: TensorBoard and Weights & Biases, if they are asked for.

Both are imported when they are asked for and at no other time. A number of the whole run is called
``run/lr`` there, one of a dictionary ``fvu/<dictionary>``, so that the dictionaries of one pass stand
in one section, each metric with one curve for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from interp.errors import TrainingError
from interp.store.files import write_new

__all__ = ["Sink", "TensorBoard", "WandB", "flat"]

_ID = "wandb-run-id"


class Sink(Protocol):
    """Takes the numbers of a step."""

    def write(self, step: int, values: Mapping[str, int | float]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def flat(values: Mapping[str, Mapping[str, int | float]]) -> dict[str, int | float]:
    """One name for each number of a step.

    >>> flat({"": {"lr": 0.5}, "L0.mlp": {"fvu": 0.25}})
    {'run/lr': 0.5, 'fvu/L0.mlp': 0.25}
    """
    return {
        f"{metric}/{name}" if name else f"run/{metric}": value
        for name, metrics in values.items()
        for metric, value in metrics.items()
    }


class TensorBoard:
    """Event files in ``folder``.

    Args:
        after: the run goes on after this step: TensorBoard then hides what was written of later ones.

    Raises:
        TrainingError: the package is not installed.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                f"tensorboard=True: the package cannot be imported ({error}). Run `pip install "
                "tensorboard`, or leave it out: log.jsonl holds the same numbers."
            ) from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=after + 1)

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, whose id stands in ``wandb-run-id`` so that resuming goes on with it.

    Steps that it has already are dropped by wandb itself. ``WANDB_MODE`` (offline, disabled) is heeded.

    Raises:
        TrainingError: the package is not installed, or it does not start.
    """

    def __init__(
        self, project: str, folder: Path, *, resumed: bool, config: Mapping[str, Any] | None
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise TrainingError(
                f"wandb={project!r}: the package cannot be imported ({error}). Run `pip install "
                "wandb`, or leave it out: log.jsonl holds the same numbers."
            ) from error
        known = folder / _ID
        own = known.read_text().strip() if resumed and known.is_file() else None
        try:
            self._run: Any = wandb.init(
                project=project, dir=str(folder), id=own, resume="allow", config=dict(config or {})
            )
        except wandb.errors.Error as error:
            raise TrainingError(
                f"wandb={project!r} does not start ({error}). Set WANDB_MODE=offline to keep its files "
                "here, or leave it out: log.jsonl holds the same numbers."
            ) from error
        write_new(known, [f"{self._run.id}\n".encode()])

    def write(self, step: int, values: Mapping[str, int | float]) -> None:
        self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Nothing: wandb writes in a process of its own."""

    def close(self) -> None:
        self._run.finish()
