"""Training: the same seed gives the same bytes, also across an interruption."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.demo.architecture import build_model
from interp.demo.checkpoints import as_shipped, sha256
from interp.demo.optimiser import rate_at
from interp.demo.progress import plan
from interp.demo.recipe import FULL, SMALL, Mixture, Recipe, RecipeError
from interp.demo.training import STATE, TrainingInterruptedError, train_demo
from interp.errors import CheckpointError

TINY = Recipe(
    name="tiny",
    layers=1,
    width=32,
    heads=2,
    mlp=64,
    context=32,
    steps=5,
    rows=2,
    warmup=2,
    longest=12,
    look_every=0,
    keep=(2,),
)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return train_demo(tmp_path_factory.mktemp("demo") / "model", TINY, progress=False)


def interrupt_after(step):
    def on_step(done):
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return on_step


def test_same_seed_same_bytes(report, tmp_path):
    again = train_demo(tmp_path / "a", TINY, progress=False)
    other = train_demo(tmp_path / "b", TINY, seed=1, progress=False)
    assert again.sha256 == report.sha256
    assert other.sha256[WEIGHTS] != report.sha256[WEIGHTS]
    assert again.table == report.table


def test_interrupted_and_resumed_is_the_same(report, tmp_path):
    out = tmp_path / "model"
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterruptedError, match=r"after step 3 of 5.*--resume"):
        train_demo(out, TINY, progress=False, on_step=interrupt_after(3))
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (out / WEIGHTS).exists()
    resumed = train_demo(out, TINY, progress=False, resume=True)
    assert resumed.sha256 == report.sha256
    assert not (out / STATE).exists()


def test_the_folder_is_complete(report):
    assert report.sha256[WEIGHTS] == sha256(report.out / WEIGHTS)
    names = {file.name for file in report.out.iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "datasheet.json"} <= names
    assert not [name for name in names if "partial" in name]
    assert (report.out / "checkpoints" / "step-0002" / "config.json").is_file()
    sheet = json.loads((report.out / "datasheet.json").read_text(encoding="utf-8"))
    assert sheet["sha256"] == report.sha256
    assert sheet["tokens"] == 5 * 2 * 32
    assert set(sheet["measured"]) == set(sheet["untrained"]) == set(report.table)


def test_the_checkpoint_is_the_model_rounded_to_float16(report):
    loaded = AutoModelForCausalLM.from_pretrained(report.out)
    assert loaded.dtype == torch.float32
    for weight in loaded.parameters():
        assert torch.equal(weight, weight.half().float())


def test_as_shipped_rounds_a_copy():
    model = build_model(TINY, vocabulary=50, seed=0)
    shipped = as_shipped(model)
    before, after = model.gpt_neox.embed_in.weight, shipped.gpt_neox.embed_in.weight
    assert torch.equal(before.half().float(), after)
    assert not torch.equal(before, after)


def test_initial_weights_come_from_the_seed():
    first, again, other = (build_model(TINY, vocabulary=50, seed=seed) for seed in (0, 0, 1))
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert not first.config.use_parallel_residual
    assert first.config.rope_parameters["rope_theta"] == TINY.rope_theta


def test_the_rate_warms_up_and_falls():
    rates = [rate_at(FULL, step) for step in range(FULL.steps)]
    peak = rates.index(max(rates))
    assert peak < 2 * FULL.warmup
    assert rates[: FULL.warmup] == sorted(rates[: FULL.warmup])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 0.03


def test_the_plan_counts():
    text = plan(SMALL, build_model(TINY, vocabulary=50, seed=0), seconds_a_step=0.6)
    assert f"{SMALL.steps} steps" in text
    assert f"{round(SMALL.steps * 0.6 / 60)} min" in text
    assert "MiB" in text


def test_a_folder_in_use_is_left_alone(report, tmp_path):
    before = sha256(report.out / WEIGHTS)
    with pytest.raises(CheckpointError, match="already holds a model"):
        train_demo(report.out, TINY, progress=False)
    assert sha256(report.out / WEIGHTS) == before
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train_demo(tmp_path, TINY, progress=False, resume=True)


def test_an_interrupted_run_is_resumed_as_it_was(tmp_path):
    with pytest.raises(TrainingInterruptedError):
        train_demo(tmp_path, TINY, progress=False, on_step=interrupt_after(1))
    with pytest.raises(CheckpointError, match=r"go on with it by resume"):
        train_demo(tmp_path, TINY, progress=False)
    with pytest.raises(CheckpointError, match=r"has seed 0, but 5 was asked for"):
        train_demo(tmp_path, TINY, seed=5, progress=False, resume=True)
    with pytest.raises(CheckpointError, match=r"has recipe .* resume with the same recipe"):
        train_demo(tmp_path, replace(TINY, steps=9), progress=False, resume=True)
    (tmp_path / STATE).write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match=r"is not the state of a training run"):
        train_demo(tmp_path, TINY, progress=False, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"width": 30, "heads": 4}, "width 30 is not a multiple of heads 4"),
        ({"longest": 40}, "do not fit twice"),
        ({"keep": (9,)}, "keep names step 9"),
        ({"curriculum": (Mixture(until=0.5),)}, r"the last at 1, got \[0.5\]"),
    ],
)
def test_impossible_recipes_are_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        replace(TINY, **change)
