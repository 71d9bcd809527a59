"""The notebooks that travel with the repository: their fast form runs, their claims hold, their nulls do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp import notebooks
from interp.notebooks import index
from interp.notebooks.source import cells_digest
from tests.notebooks.small import executed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
SOURCES = {source.name: source for source in notebooks.find(FOLDER)}
ENTRIES = notebooks.read(FOLDER / notebooks.CLAIMS)
CLAIMS = [
    pytest.param(claim, id=f"{name}: {claim.name}")
    for name, entry in ENTRIES.items()
    for claim in entry.claims
]


def test_every_paper_has_its_notebook_and_every_notebook_its_claims():
    assert list(ENTRIES) == sorted(SOURCES)
    numbers = [int(name[:2]) for name in SOURCES]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_holds_and_fails_with_its_null_in_its_place(claim):
    assert claim.holds, claim
    assert not claim.swapped().holds, claim


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_recorded_is_of_the_text_as_it_stands(name):
    """A notebook that was changed is executed again before its numbers are believed."""
    entry, source = ENTRIES[name], SOURCES[name]
    assert entry.source == source.digest, f"changed since: interp notebooks run {name[:2]}"
    assert dict(entry.parameters) == {}
    assert len(entry.seeds) >= 3
    assert entry.seeds == tuple(source.parameters()["SEEDS"])
    executed = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert cells_digest(executed) == cells_digest(source.notebook())
    assert executed["metadata"]["interp"]["source"] == source.digest
    counts = [c["execution_count"] for c in executed["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))  # once, from top to bottom


def test_the_page_of_notebooks_is_of_the_recorded_claims():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page.count(index.BEGIN) == page.count(index.END) == 1
    between = page.partition(index.BEGIN)[2].partition(index.END)[0].strip()
    assert between == index.rendered(ENTRIES, SOURCES).strip()


def test_every_figure_belongs_to_a_notebook_and_is_there():
    named = {
        f"{name}-{figure}{ending}"
        for name, entry in ENTRIES.items()
        for figure in entry.figures
        for ending in (".png", ".svg")
    }
    assert {path.name for path in (FOLDER / "figures").iterdir()} == named
    assert all(entry.figures for entry in ENTRIES.values())


def test_no_output_names_a_path_of_the_machine_it_was_made_on():
    for name in SOURCES:
        text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
        for private in (str(ROOT), str(Path.home()) + "/", "/tmp/"):
            assert private not in text, (name, private)


@pytest.mark.parametrize("name", SOURCES)
def test_the_fast_form_runs_and_its_claims_hold(name, tmp_path, monkeypatch):
    """In this process: what a kernel adds is tested once, on small ones."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    study = executed(SOURCES[name])
    assert study.fast
    assert len(study.seeds) == 1
    assert study.claims
    for claim in study.claims:
        assert claim.holds, claim
        assert not claim.swapped().holds, claim
    assert plt.get_fignums() == []
    assert list(tmp_path.iterdir()) == []
