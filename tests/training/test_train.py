"""``interp.train``: from a model or a store, one dictionary or several, on disk and back."""

from __future__ import annotations

import json

import pytest
import torch

import interp
from interp.errors import SiteError, TrainingError

SMALL = {
    "site": "L0.mlp", "kind": "transcoder", "d_sae": 96, "k": 6, "batch": 512, "tokens": 512 * 30,
    "log_every": 10, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, interp.train(store, out=out, checkpoint_every=10, **SMALL)


def test_a_run_leaves_a_dictionary_a_log_and_checkpoints(run, store):
    out, made = run
    (folder,) = [path for path in out.iterdir() if path.name.startswith("L0")]
    assert (folder / "cfg.json").is_file()
    assert (folder / "sae_weights.safetensors").is_file()
    again = interp.load_dictionary(folder)
    x = store.rows(range(50))["L0.mlp.input"]
    assert again(x).equal(made(x))
    assert again.spec == made.spec
    kept = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert kept == [f"step-000000{n}.{end}" for n in (20, 30) for end in ("json", "safetensors")]
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines
    assert list((out / "tensorboard").iterdir())


def test_the_record_holds_the_run(run):
    record = run[1].training_record
    frame = record.to_frame()
    assert frame["step"].tolist() == [1, 11, 21, 30]
    assert frame["fvu"].iloc[-1] < frame["fvu"].iloc[0] < 1.5
    assert {"loss", "l0", "dead", "lr", "tokens_per_s"} <= set(frame.columns)
    assert record.provenance.weights_hash
    assert record.firing.numel() == 96


def test_the_same_call_opens_a_finished_run_and_another_is_refused(run, store):
    out, made = run
    before = (out / "log.jsonl").read_text()
    again = interp.train(store, out=out, checkpoint_every=10, **SMALL)
    assert again.hash == made.hash
    assert (out / "log.jsonl").read_text() == before
    with pytest.raises(TrainingError, match="k"):
        interp.train(store, out=out, **{**SMALL, "k": 7})
    with pytest.raises(TrainingError, match="resume=False"):
        interp.train(store, out=out, resume=False, **SMALL)


def test_several_dictionaries_in_one_pass_are_what_each_is_alone(run, store):
    many = interp.train(store, **{**SMALL, "k": [6, 12], "d_sae": [96, 64]})
    assert len(many) == 4
    assert many["L0.mlp-transcoder-topk-96-k6"].hash == run[1].hash


def test_a_model_is_run_as_rows_are_asked_for(demo):
    made = interp.train(
        demo, corpus="demo", **{**SMALL, "site": "L2.resid_post", "kind": "sae", "tokens": 512 * 40}
    )
    assert made.spec.reads == ("L2.resid_post",)
    assert made.spec.model == "demo"
    assert made.training_record.summary()["fvu"] < 0.5


def test_a_stream_goes_on_to_the_same_bits(demo, tmp_path):
    options = {**SMALL, "tokens": 512 * 40, "corpus": "demo", "buffer": 4096, "seed": 3}
    whole = interp.train(demo, **options)
    calls = 0
    real = interp.training.trainee.Trainee.step

    def step(self, *args, **keywords):
        nonlocal calls
        calls += 1
        if calls == 35:
            raise RuntimeError("the lights went out")
        return real(self, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interp.training.trainee.Trainee, "step", step)
        with pytest.raises(RuntimeError, match="lights"):
            interp.train(demo, out=tmp_path / "o", checkpoint_every=33, **options)
    again = interp.train(demo, out=tmp_path / "o", checkpoint_every=33, **options)
    assert again.hash == whole.hash


def test_ctrl_c_finishes_the_step_saves_and_is_raised(store, tmp_path):
    import os
    import signal

    whole = interp.train(store, **SMALL)
    real, calls = interp.training.trainee.Trainee.step, 0

    def step(self, *args, **keywords):
        nonlocal calls
        calls += 1
        out = real(self, *args, **keywords)
        if calls == 29:
            os.kill(os.getpid(), signal.SIGINT)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interp.training.trainee.Trainee, "step", step)
        with pytest.raises(KeyboardInterrupt):
            interp.train(store, out=tmp_path / "o", **{**SMALL, "tokens": 512 * 30})
    assert calls == 29
    again = interp.train(store, out=tmp_path / "o", **SMALL)
    assert again.hash == whole.hash


def test_heads_side_by_side(store):
    made = interp.train(store, **{**SMALL, "site": "L2.z", "kind": "sae", "tokens": 1024})
    assert made.d_in == 192


def test_a_cross_layer_transcoder(store):
    made = interp.train(
        store, **{**SMALL, "site": "L*.mlp", "kind": "cross_layer_transcoder", "tokens": 512 * 20}
    )
    assert made.spec.writes == ("L0.mlp_out", "L1.mlp_out")
    x = torch.stack([store.rows(range(9))[f"L{layer}.mlp.input"] for layer in (0, 1)])
    assert made(x).shape == (2, 9, 192)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"site": "L3.mlp"}, TrainingError, "the data has no 'L3.mlp.input'; nearest"),
        ({"site": "L0.mpl"}, SiteError, "nearest"),
        ({"kind": "sae"}, TrainingError, "say site='L0.mlp_out', or kind='transcoder'"),
        ({"site": "L2.resid_post"}, TrainingError, "say site='L2.mlp'"),
        ({"site": "L*.mlp"}, TrainingError, "For several dictionaries give a list"),
        ({"site": "L0.mlp@3"}, TrainingError, "a part of a site"),
        ({"tokens": 512 * 30, "batch": 16385}, TrainingError, "make no batch"),
        ({"tensorboard": True}, TrainingError, "no folder to write to"),
        ({"corpus": "demo"}, TrainingError, "beside stored activations"),
        ({"kk": 3}, TrainingError, "nearest: 'k'"),
    ],
)
def test_bad_calls_are_refused(store, change, error, message):
    with pytest.raises(error, match=message):
        interp.train(store, **{**SMALL, **change})


@pytest.mark.bad_input
def test_what_to_train_on_is_checked(demo):
    with pytest.raises(TrainingError, match="expected a model, an ActivationStore"):
        interp.train("demo", **SMALL)
    with pytest.raises(TrainingError, match="say corpus="):
        interp.train(demo, **SMALL)
