"""Notebooks as their users open them: in JupyterLab, in a browser, all cells run, figures shown."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from interp import notebooks
from tests.notebooks.lab import browser, drawn, jupyterlab, outputs, run_all
from tests.views.browser import needs_browser

FOLDER = Path(__file__).parents[2] / "notebooks"
pytestmark = needs_browser


def run_and_look(folder: Path, profile: Path, names: list[str]) -> dict[str, dict]:
    found = {}
    with jupyterlab(folder) as server, browser(profile) as page:
        for name in names:
            run_all(page, server, f"{name}.ipynb")
            found[name] = outputs(page) | {"drawn": drawn(page)}
            page.screenshot(profile.parent / f"{name}.png")
    return found


def check(name: str, found: dict) -> None:
    assert found["errors"] == [], name
    assert found["run"] == found["cells"], name
    assert found["pictures"] >= 1, name
    assert found["drawn"] == found["pictures"], name


@pytest.mark.slow
def test_a_new_notebook_runs_and_shows_its_figure(tmp_path):
    folder = tmp_path / "notebooks"
    path = notebooks.new("Mine", folder=folder)
    source = notebooks.find(folder)[0]
    path.with_suffix(".ipynb").write_text(nbformat.writes(source.notebook({"FAST": True})))
    found = run_and_look(folder, tmp_path / "browser", [path.stem])
    check(path.stem, found[path.stem])


@pytest.mark.slow
def test_shipped_notebooks_run_and_show_their_figures(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    sources = notebooks.find(FOLDER)
    assert len(sources) >= 3
    for source in sources:
        cells = source.notebook({"FAST": True})
        (folder / f"{source.name}.ipynb").write_text(nbformat.writes(cells))
    found = run_and_look(folder, tmp_path / "browser", [source.name for source in sources])
    for name, one in found.items():
        check(name, one)
