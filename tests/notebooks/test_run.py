"""Notebooks are executed for real, and taken over whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from interp import notebooks
from interp.cli import app
from interp.errors import NotebookError
from interp.notebooks import record
from interp.notebooks.study import MIME
from tests.notebooks.small import CLAIM, END, FIGURE, write

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Three notebooks executed once: one that is fine, one that misses, and one that fails."""
    folder = tmp_path_factory.mktemp("notebooks")
    write(folder, "01_fine", FIGURE, CLAIM, END)
    write(folder, "02_misses", CLAIM.replace("above=2", "above=4"), END)
    write(folder, "03_raises", FIGURE, "\n# %%\n1 / 0\n", END)
    told: list[tuple[str, int, int]] = []
    outcomes = notebooks.run(folder, told=lambda *line: told.append(line))
    return folder, {outcome.name: outcome for outcome in outcomes}, told


def test_each_is_told_apart(done):
    _, outcomes, told = done
    assert outcomes["01_fine"].holds
    assert outcomes["02_misses"].error is None
    assert not outcomes["02_misses"].holds
    assert outcomes["03_raises"].error.startswith("ZeroDivisionError: division by zero")
    assert ("01_fine", 6, 6) in told


def test_the_claims_are_those_in_the_outputs(done):
    folder, _, _ = done
    entries = notebooks.read(folder / notebooks.CLAIMS)
    assert sorted(entries) == ["01_fine", "02_misses"]
    fine = entries["01_fine"]
    assert fine.claims[0].values == {0: 3.0, 1: 3.0}
    assert (fine.seeds, fine.figures) == ((0, 1), ("line",))
    assert fine.source == notebooks.find(folder, ["01"])[0].digest
    written = json.loads((folder / "01_fine.ipynb").read_text())
    (shown,) = [
        output["data"][MIME]
        for cell in written["cells"]
        for output in cell.get("outputs", ())
        if MIME in output.get("data", {})
    ]
    assert shown["claims"] == [claim.to_json() for claim in fine.claims]
    assert any(
        "image/png" in o.get("data", {}) for c in written["cells"] for o in c.get("outputs", ())
    )


def test_a_notebook_that_shows_no_study_is_told_so(done):
    folder, _, _ = done
    written = json.loads((folder / "01_fine.ipynb").read_text())
    with pytest.raises(NotebookError, match="the study in 02_other.py is called '01_fine'"):
        record.study_of(written, "02_other")
    for cell in written["cells"]:
        cell["outputs"] = []
    with pytest.raises(NotebookError, match="01_fine shows no study"):
        record.study_of(written, "01_fine")


def test_what_failed_leaves_nothing_but_the_cells_to_look_at(done):
    folder, _, _ = done
    assert not (folder / "03_raises.ipynb").exists()
    assert sorted(p.name for p in (folder / "figures").iterdir()) == [
        "01_fine-line.png",
        "01_fine-line.svg",
    ]
    failed = json.loads((folder / "failed" / "03_raises.ipynb").read_text())
    assert failed["cells"][-2]["outputs"][0]["ename"] == "ZeroDivisionError"


def test_what_is_up_to_date_is_kept_and_a_changed_source_is_not(done):
    folder, _, _ = done
    planned = notebooks.plan(folder, ["01", "02"])
    assert [entry.name for entry in planned.kept] == ["01_fine", "02_misses"]
    assert planned.todo == ()
    assert [s.name for s in notebooks.plan(folder, ["01"], again=True).todo] == ["01_fine"]
    path = folder / "02_misses.py"
    before = path.read_text()
    path.write_text(before + "\n# %%\n2\n")
    assert [s.name for s in notebooks.plan(folder, ["01", "02"]).todo] == ["02_misses"]
    path.write_text(before)
    other = notebooks.plan(folder, ["01"], parameters={"SEEDS": (5,)}, out=folder / "other")
    assert [s.name for s in other.todo] == ["01_fine"]


def test_running_again_gives_the_same_bytes(done, tmp_path):
    folder, _, _ = done
    before = contents(folder)
    (folder / "failed" / "01_fine.ipynb").write_text("of an earlier run")
    notebooks.run(folder, ["01"], again=True)
    after = contents(folder)
    claims = notebooks.CLAIMS
    assert {k: v for k, v in after.items() if k != claims} == {
        k: v for k, v in before.items() if k != claims
    }
    old, new = json.loads(before[claims]), json.loads(after[claims])
    for read in (old, new):
        read["notebooks"]["01_fine"].pop("seconds")
    assert old == new


def test_cells_edited_in_jupyter_are_not_written_over(done):
    folder, _, _ = done
    path = folder / "01_fine.ipynb"
    before = path.read_text()
    changed = json.loads(before)
    changed["cells"][2]["source"] = "mine = 1"
    path.write_text(json.dumps(changed))
    with pytest.raises(NotebookError, match="01_fine.ipynb was edited since it was executed"):
        notebooks.run(folder, ["01"])
    assert "mine = 1" in path.read_text()
    changed["cells"][2]["source"] = json.loads(before)["cells"][2]["source"]
    changed["cells"][2]["outputs"] = []  # outputs alone are no edit
    path.write_text(json.dumps(changed))
    assert notebooks.plan(folder, ["01"]).todo == ()
    path.write_text(before)


def test_parameters_are_set_behind_the_cell_that_names_them(done, tmp_path):
    folder, _, _ = done
    (one,) = notebooks.run(folder, ["01"], fast=True, parameters={"SIZE": 7}, out=tmp_path)
    assert one.entry.claims[0].values == {0: 7.0}
    assert dict(one.entry.parameters) == {"FAST": True, "SIZE": 7}
    assert not (tmp_path / "figures").exists()
    with pytest.raises(NotebookError, match="no parameter 'MODEL'; it has SEEDS, FAST, SIZE"):
        notebooks.plan(folder, ["01"], parameters={"MODEL": "gpt2"}, out=tmp_path)
    with pytest.raises(NotebookError, match="with FAST set they need a folder of their own"):
        notebooks.plan(folder, ["01"], fast=True)
    with pytest.raises(
        NotebookError, match="a folder of their own"
    ):  # what is recorded is lost else
        notebooks.plan(folder, ["01"], fast=True, out=folder / "figures" / "..")


def test_parameters_may_be_computed(tmp_path):
    path = write(tmp_path, "01_fine", CLAIM, END)
    text = path.read_text()
    path.write_text(
        text.replace("SEEDS = (0, 1)", "SEEDS: tuple = tuple(range(2))\nMODEL = 'demo'")
    )
    (source,) = notebooks.find(tmp_path)
    assert source.parameters()["SEEDS"] is None
    planned = notebooks.plan(tmp_path, parameters={"SEEDS": (5,)}, out=tmp_path / "out")
    assert planned.todo == (source,)
    path.write_text(text.replace("SEEDS = (0, 1)", "SEEDS = (0, 1"))
    with pytest.raises(
        NotebookError, match="01_fine.py: the cell tagged 'parameters' is no Python"
    ):
        notebooks.plan(tmp_path, parameters={"SEEDS": (5,)}, out=tmp_path / "out")


def test_a_model_folder_is_found_from_here_and_not_from_the_kernels_folder(tmp_path, monkeypatch):
    path = write(tmp_path, "01_fine")
    path.write_text(path.read_text().replace("SEEDS =", 'MODEL = "demo"\nSEEDS ='))
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)

    def told(model):
        return notebooks.plan(tmp_path, parameters={"MODEL": model}, out="out").parameters["MODEL"]

    assert told("mine") == str((tmp_path / "mine").resolve())
    assert told("gpt2") == "gpt2"


def test_a_notebook_whose_figures_are_gone_is_not_up_to_date(done):
    folder, _, _ = done
    figure = folder / "figures" / "01_fine-line.png"
    kept = figure.read_bytes()
    figure.unlink()
    assert [s.name for s in notebooks.plan(folder, ["01"]).todo] == ["01_fine"]
    figure.write_bytes(kept)


def test_claims_of_a_folder_of_its_own_can_be_read_there(done, tmp_path):
    folder, _, _ = done
    (tmp_path / notebooks.CLAIMS).write_bytes((folder / notebooks.CLAIMS).read_bytes())

    def shown(*names):
        return CliRunner().invoke(
            app, ["notebooks", "claims", *names, "--folder", str(tmp_path), "--json"]
        )

    assert sorted(json.loads(shown().stdout)) == ["01_fine", "02_misses"]
    assert sorted(json.loads(shown("02").stdout)) == ["02_misses"]
    assert "no notebook '03'" in shown("03").stderr


def test_names_and_folders_that_are_not_there(done, tmp_path):
    folder, _, _ = done
    with pytest.raises(NotebookError, match="no notebook '01_fin' in .*nearest: '01_fine'"):
        notebooks.plan(folder, ["01_fin"])
    with pytest.raises(NotebookError, match="no notebooks in"):
        notebooks.plan(tmp_path / "none")
    with pytest.raises(NotebookError, match="jobs=0"):
        notebooks.run(folder, jobs=0)
    (tmp_path / notebooks.CLAIMS).write_text('{"notebooks": {"01_fine": {}}}')
    with pytest.raises(NotebookError, match="is damaged"):
        notebooks.read(tmp_path / notebooks.CLAIMS)


def test_interrupted_it_keeps_what_is_done_and_leaves_no_kernel_behind(tmp_path):
    write(tmp_path, "01_fine", CLAIM, END)
    write(tmp_path, "02_long", "\n# %%\nimport time; time.sleep(600)\n", END)
    process = subprocess.Popen(
        [sys.executable, "-m", "interp", "notebooks", "run", "--folder", str(tmp_path), "--jobs", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not (tmp_path / notebooks.CLAIMS).exists() and time.monotonic() < until:
            time.sleep(0.2)
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            time.sleep(0.1)
        while len(children) < 2 and time.monotonic() < until:  # the worker and its kernel
            time.sleep(0.2)
            children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert sorted(notebooks.read(tmp_path / notebooks.CLAIMS)) == ["01_fine"]
    assert not (tmp_path / "02_long.ipynb").exists()
