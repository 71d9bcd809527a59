"""Many runs of one function: every combination of some options, each under several seeds.

With ``out`` each finished run is one line of a JSONL file, written and forced to the disk when the run ends.
The same call goes on where it was stopped; a line that was cut off is done again.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import ToyError, nearest
from interp.progress import Bar
from interp.toys.interrupts import interrupts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Sweep", "sweep"]

Options = dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """What a sweep found.

    Attributes:
        options: names of what was varied, ``"seed"`` the last.
        rows: options and numbers of each finished run, in the order of the grid, seeds innermost.
        finished: whether every run is there; False after Ctrl-C.
    """

    options: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    finished: bool

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        numbers = [name for name in (self.rows[0] if self.rows else {}) if name not in self.options]
        stopped = "" if self.finished else "; stopped"
        return (
            f"Sweep({len(self)} runs over {', '.join(self.options)}: {', '.join(numbers)}{stopped})"
        )

    def to_frame(self) -> pd.DataFrame:
        """A row for each run."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.rows])

    def by_seed(self, number: str, **options: Any) -> dict[int, float]:
        """One number by seed, for one value of each option.

        Raises:
            ToyError: no such number, option or value, or options left open that differ between runs.
        """
        left = {n: v for n, v in options.items() if n not in self.options or n == "seed"}
        if left:
            raise ToyError(f"{left} are no options of this sweep; it varies {self.options}.")
        rows = [row for row in self.rows if all(row[n] == v for n, v in options.items())]
        if options and not rows:
            have = {n: list(dict.fromkeys(str(row[n]) for row in self.rows)) for n in options}
            raise ToyError(f"no run of this sweep has {options}; there are {have}.")
        found: dict[int, float] = {}
        for row in rows:
            if number not in row:
                raise ToyError(f"no number {number!r}; nearest: {nearest(number, row)}.")
            if row["seed"] in found:
                raise ToyError(
                    f"several runs of seed {row['seed']} have {options}: say more of {self.options}."
                )
            found[row["seed"]] = float(row[number])
        return found


def sweep(
    fn: Callable[..., Mapping[str, float]],
    *,
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[Any]] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Call ``fn(**options, seed=seed)`` for every combination.

    Args:
        fn: gives numbers by name.
        grid: option → its values (numbers, text, booleans, None).
        out: a ``.jsonl`` file with a line for each finished run; runs that it has are not done again.
            It does not know what ``fn`` is: give another file when that changes.
        progress: None shows a bar where a person can see it.

    Raises:
        ToyError: no seeds, a file of another sweep, or a function that gives no numbers.
    """
    seeds = list(map(_scalar, seeds))
    grid = {name: list(map(_scalar, values)) for name, values in (grid or {}).items()}
    if not seeds or any(len(values) == 0 for values in grid.values()):
        raise ToyError(f"seeds={seeds}, grid={grid}: there is nothing to run.")
    names = (*grid, "seed")
    plan = [
        dict(zip(names, cell, strict=True)) for cell in itertools.product(*grid.values(), seeds)
    ]
    path = None if out is None else Path(out)
    done = {} if path is None else _read(path, names)
    if path is not None:
        _expect_json(plan)
    with (
        interrupts() as interrupted,
        Bar(total=len(plan), what="sweep", show=progress, least=2) as bar,
    ):
        for options in plan:
            key = _key(options)
            if key not in done and not interrupted:
                numbers = _numbers(fn(**options), options)
                if interrupted:  # the run may have been cut short: it is done again
                    break
                done[key] = numbers
                if path is not None:
                    _append(path, options, numbers)
            bar.advance(what=", ".join(f"{n} {v}" for n, v in options.items()))
    rows = tuple({**options, **done[_key(options)]} for options in plan if _key(options) in done)
    return Sweep(names, rows, len(rows) == len(plan))


def _scalar(value: Any) -> Any:
    """A number of numpy or torch as Python's own, which JSON can hold."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _expect_json(plan: Sequence[Options]) -> None:
    """Before the first run, not behind it."""
    for options in plan:
        try:
            json.dumps(options)
        except TypeError as error:
            raise ToyError(
                f"{options} cannot be written to a file ({error}): give numbers or text, and make of them in "
                "the function what they stand for."
            ) from error


def _key(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True, default=str)


def _numbers(given: Any, options: Options) -> dict[str, float]:
    if not isinstance(given, Mapping) or not given:
        raise ToyError(
            f"the function of a sweep gave {type(given).__name__} for {options}; expected numbers by name."
        )
    clash = sorted(given.keys() & options.keys())
    if clash:
        raise ToyError(f"the numbers of a sweep have the names of options: {', '.join(clash)}.")
    try:
        return {name: float(value) for name, value in given.items()}
    except (TypeError, ValueError) as error:
        raise ToyError(
            f"the function of a sweep gave {dict(given)!r:.200} for {options}; expected numbers by name."
        ) from error


def _read(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Numbers of the finished runs of a file, by options; those that JSON lacks are read from their text."""
    if path.is_dir():
        raise ToyError(f"out={str(path)!r} is a folder; expected a .jsonl file.")
    found: dict[str, dict[str, float]] = {}
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1]  # a line cut off by a kill: that run is done again
    for number, line in enumerate(whole.splitlines()):
        if not line:
            continue
        try:
            row = json.loads(line)
            first = list(row)[: len(names)]  # options stand before numbers, the seed between them
            if set(first) != set(names) or first[-1] != "seed":
                raise KeyError(*first)
            numbers = {name: float(value) for name, value in row.items() if name not in names}
        except (ValueError, KeyError, TypeError) as error:
            raise ToyError(
                f"{str(path)!r}, line {number + 1}, is of no sweep over {', '.join(names)}: give another "
                "file."
            ) from error
        found[_key({name: row[name] for name in names})] = numbers
    return found


def _append(path: Path, options: Options, numbers: Mapping[str, float]) -> None:
    """Add a line; one that was cut off before is taken away first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {n: v if math.isfinite(v) else str(v) for n, v in numbers.items()}
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            text = path.read_bytes()
            file.truncate(text.rfind(b"\n") + 1)
        file.write(json.dumps({**options, **plain}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
