"""A new notebook in the form of the others: it runs as it is, and its parts wait to be replaced."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Final

from interp.errors import NotebookError
from interp.notebooks.source import Source, cells_digest

__all__ = ["new"]

_TEMPLATE: Final = "template.py.j2"
_FIRST: Final = 19  # those below are the papers that travel with the repository
_LONGEST: Final = 40  # characters of a file's name


def new(
    title: str, *, paper: str = "Authors year, arXiv:…", folder: str | Path = "notebooks"
) -> Path:
    """Write ``NN_title.py`` and its notebook, not yet executed, under the next free number from 19 on.

    Args:
        title: the paper's title, or the question.
        paper: authors, year and arXiv number.
        folder: where notebooks lie; made where it does not exist.

    Returns:
        The path of the ``.py`` file.

    Raises:
        NotebookError: a title without letters, or one that has a notebook already.
    """
    import nbformat

    from interp.results import write_atomically

    folder, slug = Path(folder), _slug(title)
    if taken := sorted(folder.glob(f"[0-9][0-9]_{slug}.py")):
        raise NotebookError(
            f"there is {taken[0]} already: give another title, or go on with that one."
        )
    used = [int(path.name[:2]) for path in folder.glob("[0-9][0-9]_*.py")]
    number = max([_FIRST - 1, *used]) + 1
    if number > 99:
        raise NotebookError(
            f"{folder} holds a notebook 99: there is no number left; give another folder."
        )
    path = folder / f"{number:02d}_{slug}.py"
    text = _rendered(title=" ".join(title.split()), paper=" ".join(paper.split()), name=path.stem)
    source = Source(path, text)
    notebook = source.notebook()
    # as a run does: so that the source can be changed, and nobody is said to have edited the notebook
    notebook.metadata["interp"] = {"source": source.digest, "cells": cells_digest(notebook)}
    write_atomically(path, text.encode())
    write_atomically(path.with_suffix(".ipynb"), nbformat.writes(notebook).encode())
    return path


def _slug(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    if not words:
        raise NotebookError(f"title {title!r}: expected some letters or digits to name a file by.")
    kept = ""
    for word in words:
        if kept and len(kept) + len(word) >= _LONGEST:
            break
        kept = f"{kept}_{word}" if kept else word[:_LONGEST]
    return kept


def _rendered(**values: str) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["literal"] = lambda text: json.dumps(text, ensure_ascii=False)
    template = Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(values)
