"""What a training run of a toy leaves: the model, its history, and weights on the way.

``history`` has a row for each measured step. Row s describes the model after s updates: ``loss`` is that of
the batch which comes next, ``smoothed`` an exponential mean of such losses over all steps so far (weight
.05 for the newest), and each measure what it gave.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from interp.errors import ResultError, ToyError, nearest
from interp.results import read_file, write_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["ToyRun", "module_of"]

_KIND = "ToyRun"


def module_of(model: Any) -> nn.Module:
    """The module whose parameters are trained: a toy's own, or the model itself.

    Raises:
        ToyError: it is neither.
    """
    module = getattr(model, "hf", model)
    if not isinstance(module, nn.Module):
        raise ToyError(
            f"a {type(model).__name__} cannot be trained; expected a Toy (interp.toys.transformer) or a "
            "torch module."
        )
    return module


@dataclass(frozen=True, eq=False, repr=False)
class ToyRun:
    """A trained toy and how it got there.

    Attributes:
        model: what was trained, as it stands at the end.
        history: one list for each column, ``"step"`` the first.
        checkpoints: weights after some steps, by step (see :meth:`at`).
        finished: whether all steps were done, or ``until`` was met; False after Ctrl-C.
        steps: updates that were done.
        setup: JSON values that tell this run from others: task, seed, optimiser.
    """

    model: Any
    history: Mapping[str, list[float]]
    checkpoints: Mapping[int, Mapping[str, Tensor]]
    finished: bool
    steps: int
    setup: Mapping[str, Any]

    def __repr__(self) -> str:
        told = ", ".join(f"{n} {v[-1]:.3g}" for n, v in self.history.items() if n != "step")
        return f"ToyRun({self.steps} steps: {told}{'' if self.finished else '; stopped'})"

    def column(self, name: str) -> list[float]:
        """A column of the history.

        Raises:
            ToyError: nothing of that name was measured.
        """
        if name not in self.history:
            raise ToyError(
                f"nothing called {name!r} was measured; nearest: {nearest(name, self.history)}."
            )
        return list(self.history[name])

    def steps_to(
        self, name: str, *, below: float | None = None, above: float | None = None
    ) -> float:
        """The first measured step at which a column is below (or above) a value; infinity if none is.

        As exact as the run was measured: see ``every``.

        Raises:
            ToyError: no such column, or not one of ``below`` and ``above``.
        """
        if (below is None) == (above is None):
            raise ToyError(f"below={below}, above={above}: give one of them.")
        for step, value in zip(self.history["step"], self.column(name), strict=True):
            if (below is not None and value < below) or (above is not None and value > above):
                return float(step)
        return math.inf

    def at(self, step: int) -> Any:
        """A copy of the model with the weights of a checkpoint.

        Raises:
            ToyError: no weights were kept at that step.
        """
        if step not in self.checkpoints:
            have = ", ".join(map(str, sorted(self.checkpoints))) or "none"
            raise ToyError(
                f"there is no checkpoint of step {step}; there are: {have}. Train with checkpoints=."
            )
        model = copy.deepcopy(self.model)
        module_of(model).load_state_dict(dict(self.checkpoints[step]))
        return model

    def to_frame(self) -> pd.DataFrame:
        """The history: a row for each measured step."""
        import pandas as pd

        frame = pd.DataFrame(dict(self.history))
        return frame.astype({"step": int})

    def plot(self, *names: str, title: str | None = None) -> Figure:
        """Curves of some columns (all but ``loss`` by default) over steps."""
        from interp.figures.curves import curves

        chosen = names or tuple(n for n in self.history if n not in ("step", "loss"))
        return curves(
            self.history["step"],
            {name: self.column(name) for name in chosen},
            title=title or "training",
            y_name=chosen[0] if len(chosen) == 1 else "",
        )

    # -- files -------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write history, weights and checkpoints to one safetensors file; a toy's config goes with them."""
        weights = module_of(self.model).state_dict()
        tensors = {f"model/{name}": x for name, x in weights.items()}
        for step, kept in self.checkpoints.items():
            tensors |= {f"step-{step}/{name}": x for name, x in kept.items()}
        columns = {name: torch.tensor(v, dtype=torch.float64) for name, v in self.history.items()}
        tensors |= {f"history/{name}": x for name, x in columns.items()}
        described = getattr(self.model, "to_json", None)
        meta = {
            "finished": self.finished,
            "steps": self.steps,
            "setup": dict(self.setup),
            "columns": list(self.history),
            "toy": None if described is None else described(),
        }
        return write_file(path, _KIND, tensors, meta)

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> ToyRun:
        """Read a saved run.

        Args:
            model: a module of the same shape, which gets the weights; not needed for a Toy.

        Raises:
            ResultError: no such file, a damaged one, or the weights do not fit the model.
        """
        tensors, meta = read_file(path, _KIND)
        if model is None:
            if meta["toy"] is None:
                raise ResultError(
                    f"{str(path)!r} holds a run of a module that only its own code can make: give "
                    "model=, a module of the same shape."
                )
            from interp.toys.transformer import from_json

            model = from_json(meta["toy"])
        try:
            module_of(model).load_state_dict(_under(tensors, "model/"))
        except RuntimeError as error:
            raise ResultError(f"the weights of {str(path)!r} do not fit: {error}") from error
        steps = sorted({int(n.split("/")[0][5:]) for n in tensors if n.startswith("step-")})
        return cls(
            model,
            {name: tensors[f"history/{name}"].tolist() for name in meta["columns"]},
            {step: _under(tensors, f"step-{step}/") for step in steps},
            meta["finished"],
            meta["steps"],
            meta["setup"],
        )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}


#: A measure: the model and rows that it was not trained on → a number.
Measure = Callable[[Any, Any], float]
