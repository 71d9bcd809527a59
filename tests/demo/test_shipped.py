"""The shipped demo model: it is what its datasheet says, and it can do what it is shipped for."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.demo.architecture import build_model
from interp.demo.checkpoints import sha256
from interp.demo.evaluation import evaluate, head_scores
from interp.demo.readme import render
from interp.demo.recipe import FULL
from interp.demo.vocabulary import build_tokenizer
from interp.paths import data_dir

FOLDER = data_dir() / "models" / "demo"


@pytest.fixture(scope="module")
def sheet():
    return json.loads((FOLDER / "datasheet.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def measured(tokenizer):
    return evaluate(AutoModelForCausalLM.from_pretrained(FOLDER), tokenizer)


def test_every_weights_file_is_the_one_of_the_datasheet(sheet):
    found = {str(p.relative_to(FOLDER).as_posix()) for p in FOLDER.rglob("*.safetensors")}
    assert found == set(sheet["sha256"])
    for name, digest in sheet["sha256"].items():
        assert sha256(FOLDER / name) == digest
    assert sum((FOLDER / name).stat().st_size for name in found) < 20 * 2**20


def test_its_readme_is_written_from_the_datasheet(sheet):
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == render(sheet)


def test_it_measures_what_its_datasheet_says(measured, sheet):
    assert set(measured) == set(sheet["measured"])
    for name, value in sheet["measured"].items():
        assert measured[name] == pytest.approx(value, abs=0.01), name


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("capital_trained", 0.98),
        ("capital_heldout", 0.8),
        ("ioi", 0.97),
        ("ioi_logit_diff", 4.0),
        ("greater_than", 0.6),
        ("mcq_2", 0.9),
        ("mcq_4", 0.9),
        ("repeat", 0.9),
        ("best_induction", 0.6),
        ("best_previous_token", 0.6),
    ],
)
def test_it_can_do_what_it_is_shipped_for(measured, name, least):
    assert measured[name] >= least


def test_the_untrained_twin_can_do_nothing(sheet, tokenizer):
    twin = evaluate(
        build_model(FULL, vocabulary=len(tokenizer), seed=sheet["seed"]), tokenizer, n=50
    )
    for name in ("capital_trained", "ioi", "repeat"):
        assert twin[name] <= 0.05
    assert abs(twin["greater_than"]) < 0.1
    assert twin["best_induction"] < 0.2
    assert twin["best_previous_token"] < 0.2


def test_head_scores_are_those_of_the_datasheet(sheet, tokenizer):
    scores = head_scores(AutoModelForCausalLM.from_pretrained(FOLDER), tokenizer)
    for kind, layers in sheet["heads"].items():
        assert torch.allclose(scores[kind], torch.tensor(layers), atol=0.005)


def test_its_tokenizer_is_the_one_the_data_makes(tokenizer):
    assert tokenizer.get_vocab() == build_tokenizer(context=FULL.context).get_vocab()


def test_its_recipe_is_the_full_one(sheet):
    assert sheet["recipe"] == json.loads(json.dumps(asdict(FULL)))
    assert (sheet["steps"], sheet["tokens"]) == (FULL.total, FULL.tokens)


def test_early_checkpoints_load(sheet, tokenizer):
    early = sorted(name for name in sheet["sha256"] if name.startswith("checkpoints/"))
    assert len(early) == 3
    for name in early:
        model = AutoModelForCausalLM.from_pretrained((FOLDER / name).parent)
        assert model(**tokenizer("The capital of", return_tensors="pt")).logits.isfinite().all()
