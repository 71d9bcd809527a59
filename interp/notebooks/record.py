"""``claims.json``: what each notebook claimed when it was last executed, and of which text.

Only :func:`interp.notebooks.run` writes it, from the outputs of executed notebooks. An entry holds the sha256 of
the notebook's source, so a test can tell that a notebook was changed and not executed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from interp.errors import NotebookError
from interp.notebooks.claim import Claim
from interp.notebooks.study import MIME

__all__ = ["Entry", "read", "study_of", "write"]

_SCHEMA: Final = 1


@dataclass(frozen=True)
class Entry:
    """A notebook as it was last executed.

    Attributes:
        name: the notebook's.
        question: what it asks.
        paper: whose question that is.
        seeds: the seeds of its claims.
        claims: what it claims.
        figures: names of its figures.
        parameters: what was set for the run; empty where it ran as it is written.
        source: sha256 of its ``.py``.
        package: sha256 of this package's code.
        seconds: how long it took.
        versions: of Python and of the packages the numbers depend on.
    """

    name: str
    question: str
    paper: str
    seeds: tuple[int, ...]
    claims: tuple[Claim, ...]
    figures: tuple[str, ...]
    parameters: Mapping[str, Any]
    source: str
    package: str
    seconds: float
    versions: Mapping[str, str]

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    @classmethod
    def of(
        cls, study: Mapping[str, Any], *, parameters: Mapping[str, Any], source: str, package: str,
        seconds: float,
    ) -> Entry:  # fmt: skip
        """The entry of a notebook that was just executed, from the study in its output."""
        from interp.results import versions  # with torch: a worker needs neither

        return cls(
            study["name"], study["question"], study["paper"], tuple(study["seeds"]),
            tuple(map(Claim.from_json, study["claims"])), tuple(study["figures"]), dict(parameters),
            source, package, round(seconds, 1), versions(),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "question": self.question, "paper": self.paper, "seeds": list(self.seeds),
            "claims": [claim.to_json() for claim in self.claims], "figures": list(self.figures),
            "parameters": dict(self.parameters), "source": self.source, "package": self.package,
            "seconds": self.seconds, "versions": dict(self.versions),
        }  # fmt: skip

    @classmethod
    def from_json(cls, name: str, read: Mapping[str, Any]) -> Entry:
        """The entry of :meth:`to_json`."""
        return cls(
            name, read["question"], read["paper"], tuple(read["seeds"]),
            tuple(map(Claim.from_json, read["claims"])), tuple(read["figures"]), read["parameters"],
            read["source"], read["package"], read["seconds"], read["versions"],
        )  # fmt: skip


def read(path: Path) -> dict[str, Entry]:
    """The entries by name; none where there is no file.

    Raises:
        NotebookError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return {name: Entry.from_json(name, entry) for name, entry in given["notebooks"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookError(
            f"{path} is damaged ({type(error).__name__}: {error}). 'interp notebooks run --again' "
            "writes it anew once it is out of the way."
        ) from None


def write(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write the file, whole or not at all."""
    from interp.results import write_atomically

    whole = {
        "schema": _SCHEMA,
        "notebooks": {name: entries[name].to_json() for name in sorted(entries)},
    }
    write_atomically(path, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())


def study_of(notebook: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The study that an executed notebook shows.

    Raises:
        NotebookError: it shows none, or one of another name.
    """
    found: Mapping[str, Any] | None = None
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            found = output.get("data", {}).get(MIME, found)
    if found is None:
        raise NotebookError(
            f"{name} shows no study: its last cell should be 'study' alone, after "
            "study = interp.study(...)."
        )
    if found["name"] != name:
        raise NotebookError(
            f"the study in {name}.py is called {found['name']!r}: interp.study's first argument is the "
            "file's name, as its figures and claims go by it."
        )
    return found
