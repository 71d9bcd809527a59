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
            ToyError: no such number or option, or options left open that differ between runs.
        """
        left = {n: v for n, v in options.items() if n not in self.options or n == "seed"}
        if left:
            raise ToyError(f"{left} are no options of this sweep; it varies {self.options}.")
        rows = [row for row in self.rows if all(row[n] == v for n, v in options.items())]
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
    grid = dict(grid or {})
    if not seeds or any(len(values) == 0 for values in grid.values()):
        raise ToyError(f"seeds={list(seeds)}, grid={grid}: there is nothing to run.")
    names = (*grid, "seed")
    plan = [
        dict(zip(names, cell, strict=True)) for cell in itertools.product(*grid.values(), seeds)
    ]
    path = None if out is None else Path(out)
    done = {} if path is None else _read(path, names)
    with (
        interrupts() as interrupted,
        Bar(total=len(plan), what="sweep", show=progress, least=2) as bar,
    ):
        for options in plan:
            key = _key(options)
            if key not in done and not interrupted:
                row = {**options, **_numbers(fn(**options), options)}
                if interrupted:  # the run may have been cut short: it is done again
                    break
                done[key] = row
                if path is not None:
                    _append(path, done[key])
            bar.advance(what=", ".join(f"{n} {v}" for n, v in options.items()))
    rows = tuple(done[_key(options)] for options in plan if _key(options) in done)
    return Sweep(names, rows, len(rows) == len(plan))


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
    return {name: float(value) for name, value in given.items()}


def _read(path: Path, names: Sequence[str]) -> dict[str, Options]:
    """Finished runs of a file; numbers that JSON lacks are read from their text."""
    found: dict[str, Options] = {}
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            row = json.loads(line)
            options = {name: row[name] for name in names}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if number == len(lines) - 1:
                continue  # cut off by a kill: that run is done again
            raise ToyError(
                f"{str(path)!r}, line {number + 1}, is of no sweep over {', '.join(names)}: give another "
                "file."
            ) from error
        found[_key(options)] = {n: float(v) if n not in names else v for n, v in row.items()}
    return found


def _append(path: Path, row: Options) -> None:
    """Add a line; one that was cut off before is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {n: str(v) if isinstance(v, float) and not math.isfinite(v) else v
             for n, v in row.items()}  # fmt: skip
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            text = path.read_bytes()
            file.truncate(text.rfind(b"\n") + 1)
        file.write(json.dumps(plain).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
