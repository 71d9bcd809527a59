"""A new notebook runs as it is, and nothing is written over."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from interp import notebooks
from interp.cli import app
from interp.errors import NotebookError
from tests.notebooks.conftest import DIGEST
from tests.notebooks.small import executed


def call(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


def flat(text: str) -> str:
    return " ".join(text.split())


def test_it_runs_as_it_is(tmp_path, monkeypatch):
    """In this process: what a kernel adds is tested in test_run, and what JupyterLab adds by make jupyterlab."""
    folder = tmp_path / "notebooks"
    title = 'What does "Attention" do?'
    call("new-notebook", title, "--paper", "A 2030, arXiv:1", "--folder", folder)
    path = folder / "19_what_does_attention_do.py"
    opened = json.loads(path.with_suffix(".ipynb").read_text())
    assert opened["nbformat"] == 4
    assert all(not cell.get("outputs") for cell in opened["cells"])
    shown = call("notebooks", "claims", "--folder", folder, code=1)
    assert "'interp notebooks run" in flat(shown.stderr)
    monkeypatch.chdir(tmp_path)
    study = executed(notebooks.find(folder)[0])
    assert (study.question, study.paper) == (title, "A 2030, arXiv:1")
    (claim,) = study.claims
    assert claim.holds
    assert not claim.swapped().holds


def test_a_miss_fails_and_is_named(tmp_path):
    path = notebooks.new("Misses", folder=tmp_path)
    entry = path.stem
    written = {
        "name": "size", "values": {"0": 1.0}, "null": [0.0], "control": "none", "basis": "x", "above": 2.0,
    }  # fmt: skip
    source = notebooks.find(tmp_path)[0]
    (tmp_path / "claims.json").write_text(
        json.dumps({"schema": 1, "notebooks": {entry: {
            "question": "?", "paper": "A", "seeds": [0], "claims": [written], "figures": [],
            "parameters": {}, "source": source.digest, "package": DIGEST, "seconds": 1.0,
            "versions": {},
        }}})
    )  # fmt: skip
    result = call("notebooks", "run", "--folder", tmp_path, code=1)
    assert re.search(r"missed: 19_misses: ✗ size: 1 \(> 2\)", flat(result.stderr))
    assert "0 of 1 claims hold" in result.stdout
    assert "✗ size" in call("notebooks", "claims", "--folder", tmp_path).stdout


def test_numbers_go_on_and_titles_are_taken_once(tmp_path):
    first = notebooks.new(
        "Ünïcode & “quotes”: a long title that goes on and on and on", folder=tmp_path
    )
    assert first.name == "19_unicode_quotes_a_long_title_that_goes_on.py"
    assert notebooks.new("Another", folder=tmp_path).name == "20_another.py"
    with pytest.raises(NotebookError, match="there is .*20_another.py already"):
        notebooks.new("another!", folder=tmp_path)
    with pytest.raises(NotebookError, match="some letters"):
        notebooks.new("…", folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_seeds_that_are_no_numbers(tmp_path):
    result = call("notebooks", "run", "--seeds", "a,b", code=2)
    assert "expected numbers, as in 10,11,12" in flat(result.stderr)


def test_its_source_can_be_changed_before_it_is_ever_run(tmp_path):
    path = notebooks.new("Changed", folder=tmp_path)
    path.write_text(path.read_text().replace("above=0.5", "above=0.6"))
    assert [source.name for source in notebooks.plan(tmp_path).todo] == [path.stem]
    notebook = path.with_suffix(".ipynb")
    notebook.write_text(notebook.read_text().replace("above=0.5", "above=0.7"))
    with pytest.raises(NotebookError, match="was edited since"):
        notebooks.plan(tmp_path)
