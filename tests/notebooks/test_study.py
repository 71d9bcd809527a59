"""What a notebook keeps while it runs."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import interp
from interp.errors import NotebookError
from interp.figures.style import canvas
from interp.notebooks.study import MIME


def opened(tmp_path, **options):
    given = {"paper": "A 2024", "seeds": (0, 1), "figures": tmp_path / "figures", **options}
    return interp.study("07_thing", "What?", **given)


def claim(study, name="x", values=(1.0, 2.0), **options):
    given = {"null": 0.0, "control": "twin", "basis": "the paper's", "above": 0.5, **options}
    return study.claim(name, values, **given)


def test_claims_are_kept_by_seed_and_shown_as_table_and_data(tmp_path):
    study = opened(tmp_path)
    claim(study, values={1: 2.0, 0: 1.0}, paper=".9 on <GPT-2>", source="Table 1")
    claim(study, "y", [0.4, 0.9])
    assert study.claims[0].values == {0: 1.0, 1: 2.0}
    assert study.claims[1].values == {0: 0.4, 1: 0.9}
    assert [c.holds for c in study.claims] == [True, False]
    assert not study.holds
    shown = study._repr_mimebundle_()
    assert shown[MIME] == study.to_json()
    assert [c["holds"] for c in shown[MIME]["claims"]] == [True, False]
    assert "✓ x" in shown["text/html"]
    assert "✗ y" in shown["text/html"]
    assert "&lt;GPT-2&gt;" in shown["text/html"]
    assert "✗ y: 0.65 [0.4, 0.9] (> 0.5)" in shown["text/plain"]


def test_the_fast_form_has_one_seed_and_writes_no_figure(tmp_path):
    study = opened(tmp_path, fast=True)
    assert study.seeds == (0,)
    claim(study, values=3.0)
    with canvas(2, 2) as (figure, axes):
        axes.plot([0, 1])
    assert study.figure(figure, "line") is figure
    assert not (tmp_path / "figures").exists()


def test_a_figure_is_written_as_png_and_svg_under_the_notebooks_name(tmp_path):
    study = opened(tmp_path)
    with canvas(2, 2) as (figure, axes):
        axes.plot([0, 1])
    study.figure(figure, "line")
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["07_thing-line.png", "07_thing-line.svg"]
    with pytest.raises(NotebookError, match="a figure 'line' in this notebook already"):
        study.figure(figure, "line")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"values": [1.0]}, r"was given 1 values, and the seeds are \[0, 1\]"),
        ({"values": 1.0}, "was given 1 values"),
        ({"values": {0: 1.0, 2: 1.0}}, r"the seeds are \[0, 1\]"),
        ({"paper": ".9"}, "expected both"),
        ({"source": "Table 1"}, "expected both"),
        ({"basis": [1]}, "fix thresholds on seeds|Fix thresholds on seeds"),
    ],
)
def test_a_claim_that_does_not_fit_is_refused(tmp_path, given, text):
    with pytest.raises(NotebookError, match=text):
        claim(opened(tmp_path), **given)


def test_names_are_given_once(tmp_path):
    study = opened(tmp_path)
    claim(study)
    with pytest.raises(NotebookError, match="a claim 'x' in this notebook already"):
        claim(study)
    with pytest.raises(NotebookError, match="each once"):
        opened(tmp_path, seeds=(1, 1))
    with pytest.raises(NotebookError, match="at least one"):
        opened(tmp_path, seeds=())


def test_numbers_may_be_tensors(tmp_path):
    study = opened(tmp_path)
    made = claim(study, values=torch.tensor([1.0, 2.0]), null=torch.tensor(0.25))
    assert (dict(made.values), made.null) == ({0: 1.0, 1: 2.0}, (0.25,))
    one = claim(opened(tmp_path, seeds=(0,)), values=torch.tensor(1.0))
    assert dict(one.values) == {0: 1.0}
    with pytest.raises(NotebookError, match="was given 1 values"):
        claim(study, "y", values=torch.tensor(1.0))


@pytest.mark.parametrize("name", ["a/b", "a b", "a.b", ""])
def test_a_figures_name_is_one_of_a_file(tmp_path, name):
    with (
        canvas(2, 2) as (figure, _),
        pytest.raises(NotebookError, match="expected letters, digits"),
    ):
        opened(tmp_path).figure(figure, name)


def test_the_fast_form_names_no_figure_that_it_did_not_write(tmp_path):
    study = opened(tmp_path, fast=True)
    with canvas(2, 2) as (figure, _):
        study.figure(figure, "line")
    assert study.to_json()["figures"] == []


def test_a_series_by_seed_is_read_by_seed(tmp_path):
    study = opened(tmp_path)
    by_seed = pd.Series({1: 2.0, 0: 1.0})
    assert dict(claim(study, "x", by_seed).values) == {0: 1.0, 1: 2.0}
    in_order = pd.Series([1.0, 2.0], index=[7, 9])
    assert dict(claim(study, "y", in_order).values) == {0: 1.0, 1: 2.0}
