"""The log of a training run: a line of JSON for each logged step, as if nobody had interrupted it.

``log.jsonl`` holds one object a line::

    {"step": 50, "run": {"tokens": 204800, "lr": 4e-05}, "dictionaries": {"L0.mlp": {"fvu": 0.41}}}

Each line is handed to the system whole as soon as it is known. A kill can tear the last one, and leaves
lines of steps after the checkpoint from which the run goes on: resuming cuts both off, so the
finished log has each step once. Numbers that are not finite are ``null`` there (standard JSON has no
word for them) and NaN when they are read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from interp.errors import TrainingError, warn
from interp.store.files import make_folder, write_new
from interp.training.disk import telling
from interp.training.sinks import Sink, TensorBoard, WandB, flat

__all__ = ["LOG", "RunLog", "read_log"]

LOG = "log.jsonl"

Number = int | float
Values = Mapping[str, Mapping[str, Number]]


class RunLog:
    """Writes a run's numbers, and keeps them in memory.

    Args:
        folder: where ``log.jsonl`` (and the folder ``tensorboard``) lies; None: in memory only.
        tensorboard: write event files for TensorBoard too.
        wandb: a project of Weights & Biases to log to; None: not.
        resume_step: the run goes on after this step: later lines are dropped. None: a new log, in
            the place of one that is there.
        config: what wandb shows as the run's configuration.

    Raises:
        TrainingError: the log is damaged or cannot be written, a package is missing, or TensorBoard or
            wandb without a folder.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        tensorboard: bool = False,
        wandb: str | None = None,
        resume_step: int | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._lines: list[tuple[int, dict[str, dict[str, Number]]]] = []
        self._file: int | None = None
        self._sinks: list[Sink] = []
        self._closed = False
        if folder is None:
            if tensorboard or wandb is not None:
                raise TrainingError("tensorboard and wandb write files: give the run a folder.")
            return
        self._path = Path(folder) / LOG
        with telling(self._path):
            make_folder(self._path.parent)
            self._lines = _resumed(self._path, resume_step)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if tensorboard:
                after = -1 if resume_step is None else resume_step
                self._sinks.append(TensorBoard(self._path.parent / "tensorboard", after=after))
            if wandb is not None:
                self._sinks.append(WandB(wandb, self._path.parent, resumed=resume_step is not None,
                                         config=config))  # fmt: skip
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each step and dictionary: ``step``, ``dictionary``, the run's numbers, its own.

        A step at which no dictionary was logged has one row with the dictionary ``""``.
        """
        return rows(self._lines)

    def write(self, step: int, values: Values) -> None:
        """Log a step.

        Args:
            step: greater than all before.
            values: for each dictionary its metrics; under ``""`` those of the whole run.

        Raises:
            TrainingError: the step is not after the last, the log is closed, or the disk refuses.
        """
        if self._closed:
            raise TrainingError(f"step {step} is logged after the log was closed: resume it.")
        if self._lines and step <= self._lines[-1][0]:
            raise TrainingError(
                f"step {step} is logged after step {self._lines[-1][0]}; expected rising steps."
            )
        own = {name: {key: _number(x) for key, x in row.items()} for name, row in values.items()}
        if self._file is not None:
            with telling(self._path):
                rest = memoryview(_line(step, own))
                while rest:
                    rest = rest[os.write(self._file, rest) :]
        self._lines.append((step, own))
        for sink in self._sinks:
            sink.write(step, flat(own))

    def sync(self) -> None:
        """Force all lines to the disk: before a checkpoint, so that it never knows more than the log.

        Raises:
            TrainingError: the disk refuses.
        """
        if self._file is not None:
            with telling(self._path):
                os.fsync(self._file)
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        """Finish the files; closing twice does nothing."""
        for sink in self._sinks:
            sink.close()
        self._sinks, self._closed = [], True
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The rows (see :attr:`RunLog.rows`) of a log on disk, of a running or finished run.

    A last line that is not finished is left out.

    Raises:
        TrainingError: there is no such file, or a line of it is damaged.
    """
    return rows([_parsed(line, Path(path), i) for i, line in enumerate(_lines_of(Path(path)), 1)])


def rows(lines: list[tuple[int, dict[str, dict[str, Number]]]]) -> list[dict[str, Any]]:
    """Lines as tidy rows; where a dictionary and the run share a name, the dictionary's stands."""
    out = []
    for step, values in lines:
        run = values.get("", {})
        names = [name for name in values if name] or [""]
        out += [{"step": step, "dictionary": n, **run, **(values[n] if n else {})} for n in names]
    return out


def _resumed(path: Path, after: int | None) -> list[tuple[int, dict[str, dict[str, Number]]]]:
    """Cut a log to the steps up to ``after``; what is left of it."""
    if after is None:
        if path.exists():
            read_log(path)  # a file that is no log is not this run's to replace
            write_new(path, [])
        return []
    if not path.exists():
        warn(f"there is no {str(path)!r}: the numbers of the steps up to {after} are lost.")
        return []
    raw = _lines_of(path)
    lines = [(line, _parsed(line, path, i)) for i, line in enumerate(raw, 1)]
    kept = [(line, parsed) for line, parsed in lines if parsed[0] <= after]
    content = b"".join(line + b"\n" for line, _ in kept)
    if len(content) != path.stat().st_size:
        write_new(path, [content])
    return [parsed for _, parsed in kept]


def _lines_of(path: Path) -> list[bytes]:
    """A log's finished lines."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise TrainingError(f"the log {str(path)!r} cannot be read: {error.strerror}.") from error


def _line(step: int, values: Values) -> bytes:
    plain = {
        name: {key: x if math.isfinite(x) else None for key, x in row.items()}
        for name, row in values.items()
    }
    content = {"step": step, "run": plain.pop("", {}), "dictionaries": plain}
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def _parsed(line: bytes, path: Path, number: int) -> tuple[int, dict[str, dict[str, Number]]]:
    try:
        content = json.loads(line)
        values = {"": content["run"], **content["dictionaries"]}
        return content["step"], {
            name: {key: math.nan if x is None else x for key, x in row.items()}
            for name, row in values.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(
            f"line {number} of {str(path)!r} is no logged step: the file was edited or damaged. Mend "
            "or remove that line."
        ) from error


def _number(x: Any) -> Number:
    """A plain number, NaN where it is not finite."""
    if isinstance(x, int):
        return int(x)
    x = float(x)
    return x if math.isfinite(x) else math.nan
