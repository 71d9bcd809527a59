"""Execute notebooks, several at once, and keep what they claim.

A notebook is taken over as one: its executed form, its figures and its claims, or none of them. One that was
executed before is left as it is while neither its source nor this package has changed, so a run that was
interrupted goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import NotebookError
from interp.notebooks import index, record
from interp.notebooks.plan import CLAIMS, Plan, plan
from interp.notebooks.record import Entry
from interp.notebooks.source import Source, cells_digest, find

__all__ = ["Outcome", "run"]

#: Called with a notebook's name, the cells done and their number.
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What came of one notebook: an entry, or an error; ``kept`` if it was not executed again."""

    name: str
    entry: Entry | None = None
    error: str | None = None
    kept: bool = False

    @property
    def holds(self) -> bool:
        """Whether it ran and its claims hold."""
        return self.entry is not None and self.entry.holds


def run(
    folder: str | Path = "notebooks",
    names: Sequence[str] = (),
    *,
    fast: bool = False,
    parameters: Mapping[str, Any] | None = None,
    jobs: int = 2,
    again: bool = False,
    out: str | Path | None = None,
    told: Told | None = None,
) -> list[Outcome]:
    """Execute notebooks, each in a kernel of its own with one thread, and keep what they claim.

    A kernel runs in an empty folder that is deleted afterwards: of the files that a notebook writes only its
    figures are kept, and files that it reads need whole paths (a ``MODEL`` given here is found from here).

    Args:
        folder: where their sources lie.
        names: which of them; all by default.
        fast: their fast form.
        parameters: names of their first cell that are set, ``{"MODEL": "gpt2"}``.
        jobs: how many run at once.
        again: execute those too that are up to date, and write over what was edited by hand.
        out: where executed notebooks, figures and claims go; the folder itself by default.
        told: called as cells are done.

    Returns:
        One outcome for each notebook, by number. An error in one does not stop the others.

    Raises:
        NotebookError: as :func:`plan`.
    """
    if jobs < 1:
        raise NotebookError(f"jobs={jobs}: expected at least one.")
    planned = plan(folder, names, fast=fast, parameters=parameters, again=again, out=out)
    outcomes = [Outcome(entry.name, entry, kept=True) for entry in planned.kept]
    alive: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(jobs) as pool:
        jobs_of = [pool.submit(_executed, source, planned, told, alive) for source in planned.todo]
        try:
            for job in as_completed(jobs_of):
                outcomes.append(job.result())
                _keep(planned.out, outcomes[-1])
        except BaseException:
            for job in jobs_of:
                job.cancel()
            for process in alive:
                process.send_signal(signal.SIGINT)
            raise
    sources = {source.name: source for source in find(Path(folder))}
    index.update(planned.out / "README.md", record.read(planned.out / CLAIMS), sources)
    return sorted(outcomes, key=lambda outcome: outcome.name)


def _keep(out: Path, outcome: Outcome) -> None:
    """One more notebook's claims into the file."""
    if outcome.entry is not None:
        path = out / CLAIMS
        record.write(path, {**record.read(path), outcome.name: outcome.entry})


def _executed(
    source: Source, planned: Plan, told: Told | None, alive: list[subprocess.Popen[str]]
) -> Outcome:
    """One notebook, executed in a folder of its own and then taken over whole."""
    from interp.results import write_atomically

    with tempfile.TemporaryDirectory(prefix=f"{source.name}-") as place:
        folder = Path(place)
        executed = folder / f"{source.name}.ipynb"
        end = _watched(source, planned.parameters, executed, told, alive)
        if end.get("error") is None and "seconds" in end:
            notebook = json.loads(executed.read_text(encoding="utf-8"))
            try:
                study = record.study_of(notebook, source.name)
            except NotebookError as error:
                return Outcome(source.name, error=str(error))
            entry = Entry.of(
                study, parameters=planned.parameters, source=source.digest,
                package=planned.package, seconds=end["seconds"],
            )  # fmt: skip
            _take_over(notebook, source, folder, planned.out)
            return Outcome(source.name, entry)
        text = end.get("error") or "its process ended before it was done"
        if executed.exists():
            failed = planned.out / "failed" / executed.name
            write_atomically(failed, executed.read_bytes())
            text += f" (executed so far: {failed})"
        return Outcome(source.name, error=text)


def _watched(
    source: Source,
    parameters: Mapping[str, Any],
    executed: Path,
    told: Told | None,
    alive: list[subprocess.Popen[str]],
) -> dict[str, Any]:
    """Run the worker and pass on how far it is; its last line."""
    request = {
        "source": str(source.path.resolve()), "parameters": dict(parameters), "out": str(executed),
        "folder": str(executed.parent),
    }  # fmt: skip
    said = executed.with_suffix(".err")
    last: dict[str, Any] = {}
    cells = 0
    command = [sys.executable, "-m", "interp.notebooks.worker", json.dumps(request)]
    with (
        said.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        alive.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            last = json.loads(line)
            cells = last.get("cells", cells)
            if told is not None and "seconds" not in last:
                told(source.name, last.get("cell", 0), cells)
    alive.remove(process)
    if "seconds" not in last:
        lines = said.read_text(errors="replace").strip().splitlines()
        return {"error": lines[-1] if lines else None}
    return last


def _take_over(notebook: dict[str, Any], source: Source, folder: Path, out: Path) -> None:
    """The executed notebook and its figures, in the place of those of an earlier run."""
    from interp.results import write_atomically

    notebook["metadata"]["interp"] = {"source": source.digest, "cells": cells_digest(notebook)}
    figures = out / "figures"
    for old in figures.glob(f"{source.name}-*"):
        old.unlink()
    for new in sorted((folder / "figures").glob("*")):
        figures.mkdir(parents=True, exist_ok=True)
        shutil.move(new, figures / new.name)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(out / f"{source.name}.ipynb", text.encode())
    (out / "failed" / f"{source.name}.ipynb").unlink(missing_ok=True)
