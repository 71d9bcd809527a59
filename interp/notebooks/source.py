"""Notebooks as text: ``NN_name.py`` in jupytext's percent format is the source of ``NN_name.ipynb``.

A ``.py`` file shows in a diff what changed and holds no outputs; the ``.ipynb`` beside it is the same cells, executed.
:func:`edited` tells whether somebody has since changed cells in Jupyter, so that nothing is written over.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from interp.errors import NotebookError, nearest

__all__ = ["PARAMETERS", "Source", "cells_digest", "edited", "find", "named", "package_digest"]

#: The tag of the cell whose names a run may set.
PARAMETERS: Final = "parameters"
_PATTERN: Final = "[0-9][0-9]_*.py"
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Source:
    """The text of a notebook.

    Attributes:
        path: its ``.py`` file.
        text: what stands in it.
    """

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The file's name without its ending, as claims and figures are named."""
        return self.path.stem

    @property
    def digest(self) -> str:
        """sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def title(self) -> str:
        """Its first heading."""
        for line in self.text.splitlines():
            if line.startswith("# # "):
                return line.removeprefix("# # ")
        return self.name

    def notebook(self, parameters: Mapping[str, Any] | None = None) -> Any:
        """The cells, not executed; parameters are set in a cell behind the one that names them.

        Raises:
            NotebookError: a parameter that the notebook does not have, or a notebook without any.
        """
        import jupytext

        notebook = jupytext.reads(self.text, fmt="py:percent")
        notebook.metadata.pop("jupytext", None)
        if parameters:
            self._set(notebook, parameters)
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"  # else drawn at random
        notebook.nbformat, notebook.nbformat_minor = 4, 5
        return notebook

    def parameters(self) -> dict[str, Any]:
        """The names that a run may set, and their values; None for one that is computed.

        Raises:
            NotebookError: no cell is tagged ``parameters``, or it is no Python.
        """
        import jupytext

        return self._assigned(self._parameter_cell(jupytext.reads(self.text, fmt="py:percent"))[1])

    def _parameter_cell(self, notebook: Any) -> tuple[int, str]:
        for index, cell in enumerate(notebook.cells):
            if PARAMETERS in cell.metadata.get("tags", ()):
                return index, cell.source
        raise NotebookError(
            f"{self.path.name} has no cell tagged {PARAMETERS!r} ('# %% tags=[\"{PARAMETERS}\"]'), where "
            "MODEL, SEEDS and FAST stand: add one at its top."
        )

    def _set(self, notebook: Any, parameters: Mapping[str, Any]) -> None:
        import nbformat

        index, text = self._parameter_cell(notebook)
        known = self._assigned(text)
        for name in parameters:
            if name not in known:
                raise NotebookError(
                    f"{self.path.name} has no parameter {name!r}; it has {', '.join(known)}."
                )
        lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        cell = nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]})
        notebook.cells.insert(index + 1, cell)

    def _assigned(self, text: str) -> dict[str, Any]:
        """Names to which a cell assigns, and the value where it is a literal."""
        try:
            body = ast.parse(text).body
        except SyntaxError as error:
            raise NotebookError(
                f"{self.path.name}: the cell tagged {PARAMETERS!r} is no Python ({error.msg}, its line "
                f"{error.lineno}): expected plain assignments such as SEEDS = (0, 1, 2)."
            ) from None
        out: dict[str, Any] = {}
        for node in body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name):
                    out[target.id] = _literal(node.value)
        return out


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def find(folder: Path, names: Sequence[str] = ()) -> list[Source]:
    """The notebooks of a folder, by number; only those that are named, if any are.

    Args:
        names: file names, or what they begin with: ``"02"``, ``"02_localization_editing"``.

    Raises:
        NotebookError: there is no such folder or notebook.
    """
    paths = sorted(folder.glob(_PATTERN))
    if not paths:
        raise NotebookError(
            f"no notebooks in {folder}: expected files like 02_name.py. Run in a clone of the repository, or "
            "name the folder (--folder)."
        )
    by_name = {path.stem: path for path in paths}
    chosen = [by_name[name] for name in named(by_name, names, folder)]
    return [Source(path, path.read_text(encoding="utf-8")) for path in chosen]


def named(known: Iterable[str], names: Sequence[str], folder: Path) -> list[str]:
    """Those of the ``known`` notebooks that are asked for as in :func:`find`; all if none is.

    Raises:
        NotebookError: one is asked for that is not known.
    """
    known, chosen = list(known), []
    for name in names or known:
        stem = Path(name).name.removesuffix(".ipynb").removesuffix(".py")
        fits = [one for one in known if one == stem or one.startswith(f"{stem}_")]
        if not fits:
            raise NotebookError(
                f"no notebook {name!r} in {folder}; nearest: {nearest(stem, known)}."
            )
        chosen += fits
    return list(dict.fromkeys(chosen))


def cells_digest(notebook: Any) -> str:
    """sha256 of the cells' kinds and sources, outputs left aside."""
    cells = [
        (cell["cell_type"], "".join(cell["source"]).strip())
        for cell in notebook["cells"]
        if "injected-parameters" not in cell["metadata"].get("tags", ())
    ]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def edited(path: Path, source: Source) -> bool:
    """Whether an ``.ipynb`` has cells that neither its last run nor its source knows."""
    if not path.exists():
        return False
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        own = cells_digest(written)
        recorded = written["metadata"].get("interp", {}).get("cells")
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"{path} is no notebook ({type(error).__name__}: {error}).") from None
    return own not in (recorded, cells_digest(source.notebook()))


def package_digest() -> str:
    """sha256 of this package's code: a notebook's numbers may change with it."""
    total = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        total.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
