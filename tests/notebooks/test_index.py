"""The page of the notebooks says what claims.json says, and nothing around it is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interp import notebooks
from interp.notebooks import index
from interp.notebooks.claim import Claim, Paper
from interp.notebooks.record import Entry
from tests.notebooks.small import write


@pytest.fixture
def entries():
    good = Claim(
        "size | unit",
        {0: 3.0, 1: 4.0},
        (0.5,),
        "none",
        "by hand",
        above=2,
        paper=Paper("2.5", "Table 1"),
    )
    bad = Claim("loss", {0: 1.0}, (2.0,), "noise", "by hand", below=0.5)
    given = {
        "paper": "A 2024",
        "seeds": (0, 1),
        "parameters": {},
        "source": "",
        "package": "",
        "versions": {},
    }
    first = Entry(
        "01_fine", "What?", claims=(good,), figures=("line", "last"), seconds=12.6, **given
    )
    second = Entry("02_misses", "Why?", claims=(good, bad), figures=(), seconds=3.2, **given)
    return {"02_misses": second, "01_fine": first}


def test_the_page_holds_every_claim_with_its_null(entries, tmp_path):
    with_model = write(tmp_path, "01_fine")
    with_model.write_text(with_model.read_text().replace("SEEDS =", 'MODEL = "demo"\nSEEDS ='))
    write(tmp_path, "02_misses")
    sources = {source.name: source for source in notebooks.find(tmp_path)}
    lines = index.rendered(entries, sources).splitlines()
    assert lines[2] == "| [01](01_fine.ipynb) | [What?](#01_fine) | A 2024 | 1 of 1 | 13 s |"
    assert lines[3] == "| [02](02_misses.ipynb) | [Why?](#02_misses) | A 2024 | 1 of 2 | 3 s |"
    claim = r"| ✓ size \| unit | 3.5 [3, 4] | > 2 | 0.5 | ≤ 2 | none | 2.5 (Table 1) |"
    assert lines.count(claim) == 2
    assert "| ✗ loss | 1 | < 0.5 | 2 | ≥ 0.5 | noise |  |" in lines
    assert "![last](figures/01_fine-last.png)" in lines
    assert sum(line.startswith("![") for line in lines) == 1
    told = [line for line in lines if "on your own model" in line]
    assert len(told) == 1
    assert "interp notebooks run 01 --model" in told[0]


def test_it_stands_between_its_markers(entries, tmp_path):
    page = tmp_path / "README.md"
    index.update(page, entries, {})
    assert not page.exists()
    page.write_text("mine\n")
    index.update(page, entries, {})
    assert page.read_text() == "mine\n"
    page.write_text(f"mine\n\n{index.BEGIN}\n\nstale\n\n{index.END}\n\nmine too\n")
    index.update(page, entries, {})
    once = page.read_text()
    assert once.startswith("mine\n\n<!--")
    assert once.endswith(f"{index.END}\n\nmine too\n")
    assert "stale" not in once
    assert "02_misses" in once
    index.update(page, entries, {})
    assert page.read_text() == once
    index.update(page, {"01_fine": replace(entries["01_fine"], question="How?")}, {})
    assert "How?" in page.read_text()
    assert "](02_misses.ipynb)" not in page.read_text()


def test_running_notebooks_writes_it(tmp_path):
    write(tmp_path, "01_fine")
    (tmp_path / "README.md").write_text(f"{index.BEGIN}\n{index.END}\n")
    (outcome,) = notebooks.run(tmp_path)  # shows no study, so that there is no entry
    assert outcome.error is not None
    assert "| question |" in (tmp_path / "README.md").read_text()


def test_a_notebook_without_parameters_is_listed_too(entries, tmp_path):
    path = write(tmp_path, "01_fine")
    path.write_text(path.read_text().replace(' tags=["parameters"]', ""))
    sources = {source.name: source for source in notebooks.find(tmp_path)}
    assert "01_fine.ipynb" in index.rendered(entries, sources)
