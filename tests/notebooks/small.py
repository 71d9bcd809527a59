"""Notebooks of a few cells, for the tests of what runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.notebooks import Source, Study

HEAD = """# %% [markdown]
# # A small one

# %% tags=["parameters"]
SEEDS = (0, 1)
FAST = False
SIZE = 3

# %%
import interp

study = interp.study("{name}", "What?", paper="A 2024", seeds=SEEDS, fast=FAST)
"""
CLAIM = """
# %%
study.claim("size", [float(SIZE)] * len(study.seeds), above=2, null=0, control="none", basis="by hand")
"""
FIGURE = """
# %%
from interp.figures.style import canvas

with canvas(2, 2) as (figure, axes):
    axes.plot([0, SIZE])
study.figure(figure, "line")
"""
END = """
# %%
study
"""


def write(folder: Path, name: str, *parts: str) -> Path:
    """A notebook's source: its head, and the given cells."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(HEAD.format(name=name) + "".join(parts), encoding="utf-8")
    return path


def executed(source: Source) -> Study:
    """The study of a notebook's fast form, its cells executed in this process instead of in a kernel."""
    own: dict[str, Any] = {"__name__": "__main__"}
    for cell in source.notebook({"FAST": True}).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{source.name}.py", "exec"), own)
    study = own["study"]
    assert isinstance(study, Study)
    return study
