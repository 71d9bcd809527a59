"""The state of a training run between two steps: everything that the next step depends on.

In the folder of a run, ``state.safetensors`` holds parameters, the optimiser's tensors and numbers, the
generator of batches, the history and the kept weights, and what the run is. A run that goes on from it
does what it would have done, to the bit. The file is written beside its place and renamed.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, Final

import torch
from torch import Tensor, nn

from interp.errors import ToyError
from interp.results import read_file, write_file

__all__ = ["State", "as_setup", "told"]

_KIND: Final = "ToyState"
_FILE: Final = "state.safetensors"


@dataclass
class State:
    """Where a run stands.

    Attributes:
        step: updates done.
        met: whether ``until`` has ended the run; it is asked again where a run goes on.
        saved: what :attr:`stands` was when it was last on disk; None: nothing is.
        smoothed: an exponential mean of the losses so far; None before the first.
    """

    folder: Path | None
    setup: dict[str, Any]
    generator: torch.Generator
    step: int = 0
    met: bool = False
    saved: tuple[int, int, int] | None = None
    smoothed: float | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, module: nn.Module, optimiser: torch.optim.Optimizer, seed: int,
        setup: dict[str, Any], folder: Path | None,
    ) -> State:  # fmt: skip
        """A new state, or the one that stands in the folder, put into module and optimiser.

        Raises:
            ToyError: the folder holds another run.
        """
        state = cls(folder, setup, torch.Generator().manual_seed(seed))
        if folder is not None and (folder / _FILE).is_file():
            state._read(module, optimiser)
        return state

    @property
    def stands(self) -> tuple[int, int, int]:
        """How far it is: steps, rows of the history, kept weights."""
        return self.step, len(self.history.get("step", ())), len(self.kept)

    # -- during a run ------------------------------------------------------------------

    def mark(self) -> tuple[Tensor, float | None]:
        """What drawing a batch and looking at its loss changes, as it is before."""
        return self.generator.get_state(), self.smoothed

    def back_to(self, mark: tuple[Tensor, float | None]) -> None:
        """Undo a draw: the batch was looked at, and no step was made with it."""
        self.generator.set_state(mark[0])
        self.smoothed = mark[1]

    def smooth(self, loss: float, weight: float) -> float:
        """The exponential mean with one loss more."""
        before = loss if self.smoothed is None else self.smoothed
        self.smoothed = (1 - weight) * before + weight * loss
        return self.smoothed

    def write(self, row: Mapping[str, float]) -> None:
        """Add a row to the history, unless a run that went on has written it."""
        if self.history and self.history["step"][-1] == row["step"]:
            return
        for name, value in row.items():
            self.history.setdefault(name, []).append(float(value))

    def keep(self, module: nn.Module) -> None:
        """Keep a copy of the weights as they stand."""
        weights = module.state_dict()
        self.kept[self.step] = {n: x.detach().cpu().clone() for n, x in weights.items()}

    # -- on disk -----------------------------------------------------------------------

    def save(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write the state, if the run has a folder."""
        if self.folder is None:
            return
        tensors = {f"model/{name}": x for name, x in module.state_dict().items()}
        packed = optimiser.state_dict()
        numbers: dict[str, dict[str, Any]] = {}
        for index, slots in packed["state"].items():
            for name, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser/{index}/{name}"] = value
                else:
                    numbers.setdefault(str(index), {})[name] = value
        for step, weights in self.kept.items():
            tensors |= {f"step-{step}/{name}": x for name, x in weights.items()}
        tensors["generator"] = self.generator.get_state()
        tensors |= {f"history/{n}": torch.tensor(v, dtype=torch.float64)
                    for n, v in self.history.items()}  # fmt: skip
        meta = {
            "setup": self.setup, "step": self.step, "smoothed": self.smoothed,
            "columns": list(self.history), "groups": packed["param_groups"], "numbers": numbers,
        }  # fmt: skip
        write_file(self.folder / _FILE, _KIND, tensors, meta)
        self.saved = self.stands

    def _read(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        assert self.folder is not None
        tensors, meta = read_file(self.folder / _FILE, _KIND)
        _expect_same(self.setup, meta["setup"], self.folder)
        own: dict[str, dict[Any, Tensor]] = {"model": {}, "history": {}}
        slots: dict[int, dict[str, Any]] = {int(i): v for i, v in meta["numbers"].items()}
        for name, x in tensors.items():
            where, _, rest = name.partition("/")
            if where in own:
                own[where][rest] = x
            elif where == "optimiser":
                index, _, slot = rest.partition("/")
                slots.setdefault(int(index), {})[slot] = x
            elif where.startswith("step-"):
                self.kept.setdefault(int(where[5:]), {})[rest] = x
        module.load_state_dict(own["model"])
        groups = [
            {n: tuple(v) if isinstance(v, list) and n == "betas" else v for n, v in group.items()}
            for group in meta["groups"]
        ]
        optimiser.load_state_dict({"state": slots, "param_groups": groups})
        self.generator.set_state(tensors["generator"])
        self.history = {name: own["history"][name].tolist() for name in meta["columns"]}
        self.step, self.smoothed = meta["step"], meta["smoothed"]
        self.saved = self.stands


def as_setup(module: nn.Module, **options: Any) -> dict[str, Any]:
    """What tells one run from another, as JSON values: options by their text, initial weights by hash."""
    digest = hashlib.sha256()
    for name, x in sorted(module.state_dict().items()):
        digest.update(f"{name}{list(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        **{name: told(value) for name, value in options.items()},
        "initial": digest.hexdigest(),
    }


def told(value: Any) -> Any:
    """An option as a JSON value that tells it from others, also in another process.

    A function is told by its name, its code and the numbers and text that it refers to: two lambdas are two.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): told(one) for name, one in value.items()}
    name = getattr(value, "__qualname__", None)
    text = f"{value.__module__}.{name}{_body(value)}" if isinstance(name, str) else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _body(fn: Any) -> str:
    """A digest of a function's code; nothing for what is not written in Python."""
    if not isinstance(getattr(fn, "__code__", None), CodeType):
        return ""
    names = inspect.getclosurevars(fn)
    held = {**names.globals, **names.nonlocals}
    plain = {n: v for n, v in held.items() if isinstance(v, bool | int | float | str)}
    parts = (
        _code(fn.__code__),
        repr(fn.__defaults__),
        repr(fn.__kwdefaults__),
        sorted(plain.items()),
    )
    return " " + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _code(code: CodeType) -> tuple[Any, ...]:
    return code.co_code, code.co_names, *map(_constant, code.co_consts)


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _expect_same(given: Mapping[str, Any], there: Mapping[str, Any], folder: Path) -> None:
    other = sorted(n for n in {*given, *there} if given.get(n) != there.get(n))
    if other:
        told = "; ".join(f"{n}: {there.get(n)!r} there, {given.get(n)!r} here" for n in other[:4])
        raise ToyError(
            f"{str(folder)!r} holds another run ({told}). Give the same arguments and a fresh model of "
            "the same seed to go on, or another folder."
        )
