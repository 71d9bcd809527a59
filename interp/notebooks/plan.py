"""What a run of notebooks would do: which are executed, which are up to date, how long it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from interp.errors import NotebookError
from interp.notebooks import record
from interp.notebooks.record import Entry
from interp.notebooks.source import Source, edited, find, package_digest

__all__ = ["CLAIMS", "Plan", "plan"]

#: The file of claims, in the folder of the executed notebooks.
CLAIMS: Final = "claims.json"
_FAST: Final = "FAST"
_MODEL: Final = "MODEL"


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        todo: notebooks to execute, those that took longest first.
        kept: entries that are up to date.
        out: the folder of executed notebooks and claims.
        parameters: what is set in each notebook.
        package: sha256 of this package's code.
        known: seconds that each notebook of ``todo`` took when it last ran so; missing where it never did.
    """

    todo: tuple[Source, ...]
    kept: tuple[Entry, ...]
    out: Path
    parameters: Mapping[str, Any]
    package: str
    known: Mapping[str, float]

    def forecast(self, jobs: int) -> float | None:
        """Seconds that a run should take; None where a notebook has never run so."""
        if any(source.name not in self.known for source in self.todo):
            return None
        times = list(self.known.values())
        return max([sum(times) / jobs, *times]) if times else 0.0


def plan(
    folder: str | Path = "notebooks",
    names: Sequence[str] = (),
    *,
    fast: bool = False,
    parameters: Mapping[str, Any] | None = None,
    again: bool = False,
    out: str | Path | None = None,
) -> Plan:
    """What :func:`run` would do; its arguments are described there.

    Raises:
        NotebookError: no such notebook or parameter, other parameters without a folder of their own, or an
            executed notebook whose cells somebody has changed.
    """
    folder = Path(folder)
    asked = {**({_FAST: True} if fast else {}), **(parameters or {})}
    if _MODEL in asked:
        asked[_MODEL] = _from_here(asked[_MODEL])
    if asked and (out is None or Path(out).resolve() == folder.resolve()):
        raise NotebookError(
            f"the notebooks in {folder} are kept as they are written; with {', '.join(asked)} set they need a "
            "folder of their own: give out (--out)."
        )
    target = folder if out is None else Path(out)
    sources, package = find(folder, names), package_digest()
    before = record.read(target / CLAIMS)
    if not again:
        _refuse_edited(sources, target)
    for source in sources:
        source.notebook(asked)  # so that a wrong parameter is told before anything runs
    entries = {} if again else {
        source.name: before[source.name]
        for source in sources
        if source.name in before and _current(before[source.name], source, asked, package, target)
    }  # fmt: skip
    todo = [source for source in sources if source.name not in entries]
    known = {
        source.name: before[source.name].seconds
        for source in todo
        if source.name in before and _same(before[source.name].parameters, asked)
    }
    todo.sort(key=lambda source: -known.get(source.name, float("inf")))
    return Plan(tuple(todo), tuple(entries.values()), target, asked, package, known)


def _from_here(model: Any) -> Any:
    """A checkpoint folder as a whole path: notebooks run in folders of their own."""
    if isinstance(model, str) and model != "demo" and (path := Path(model).expanduser()).is_dir():
        return str(path.resolve())
    return model


def _refuse_edited(sources: Sequence[Source], out: Path) -> None:
    for source in sources:
        if edited(path := out / f"{source.name}.ipynb", source):
            raise NotebookError(
                f"{path} was edited since it was executed. To keep that, put it into its source (jupytext "
                f"--to py:percent {path.name}); to drop it, run again (--again)."
            )


def _current(
    entry: Entry, source: Source, parameters: Mapping[str, Any], package: str, out: Path
) -> bool:
    return (
        (entry.source, entry.package) == (source.digest, package)
        and _same(entry.parameters, parameters)
        and (out / f"{source.name}.ipynb").exists()
        and all((out / "figures" / f"{source.name}-{f}.png").exists() for f in entry.figures)
    )


def _same(read: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Parameters as JSON: a tuple comes back as a list."""
    return json.dumps(dict(read), sort_keys=True) == json.dumps(dict(asked), sort_keys=True)
