"""``interp.train``: from a model or a store, one dictionary or several, on disk and back."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import interp
from interp.corpora.packed import Cursor
from interp.errors import DictionaryError, SiteError, StoreError, TrainingError
from interp.store.rows import Rows
from interp.store.writer import Writer
from tests.store.small import plan

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
    (file,) = run[0].glob("L0*/record.safetensors")
    plain = run[0] / "log.jsonl"
    assert file.stat().st_mode == plain.stat().st_mode  # who may read the one may read the other


def test_the_same_call_opens_a_finished_run_and_another_is_refused(run, store):
    out, made = run
    before = (out / "log.jsonl").read_text()
    again = interp.train(store, out=out, checkpoint_every=10, **SMALL)
    assert again.hash == made.hash
    assert (out / "log.jsonl").read_text() == before
    with pytest.raises(TrainingError, match="-k6: only there; .*-k7: only here"):
        interp.train(store, out=out, **{**SMALL, "k": 7})
    with pytest.raises(TrainingError, match="resume=False"):
        interp.train(store, out=out, resume=False, **SMALL)
    interp.train(store, out=out, **{**SMALL, "log_every": 3})  # changes nothing of what is trained


def test_what_is_in_the_folder_is_not_overwritten(run, store, tmp_path):
    shutil.copytree(run[0], tmp_path / "o")
    shutil.rmtree(tmp_path / "o" / "checkpoints")
    with pytest.raises(TrainingError, match="no checkpoint to go on from"):
        interp.train(store, out=tmp_path / "o", **{**SMALL, "lr": 1e-3})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "log.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(TrainingError, match="is no logged step"):
        interp.train(store, out=tmp_path / "mine", **SMALL)
    assert (tmp_path / "mine" / "log.jsonl").read_text() == '{"mine": 1}\n'


def test_two_runs_do_not_share_a_folder(store, tmp_path):
    real, told = interp.training.trainee.Trainee.step, []

    def step(self, *args, **keywords):
        if not told:
            with pytest.raises(
                TrainingError, match="another process is writing .* train into"
            ) as one:
                interp.train(store, out=tmp_path, **SMALL)
            told.append(one)
        return real(self, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interp.training.trainee.Trainee, "step", step)
        interp.train(store, out=tmp_path, **SMALL)
    assert told


def test_what_is_not_finite_stops_the_run_and_the_last_checkpoint_stays(store, tmp_path):
    real, batches = interp.training.feed.Feed.__next__, 0

    def following(self):
        nonlocal batches
        batches += 1
        rows = real(self)
        if batches == 32 + 25:  # the sample comes first
            rows["L0.mlp.input"][3, 7] = torch.inf
        return rows

    options = {**SMALL, "out": tmp_path, "checkpoint_every": 10, "k": [6, 12]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interp.training.feed.Feed, "__next__", following)
        with pytest.raises(TrainingError, match="k6: at step 25 of 30 .*holds NaN or infinities"):
            interp.train(store, **options)
    kept = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.json"))
    assert kept == ["step-00000010.json", "step-00000020.json"]
    whole = interp.train(store, **{**options, "out": None})
    again = interp.train(store, **options)
    assert [one.hash for one in again.values()] == [one.hash for one in whole.values()]


def test_several_kinds_and_sites_in_one_pass(store):
    same = {"batch": 512, "tokens": 512 * 3, "d_sae": 32}
    made = interp.train(store, progress=False, config=[
        interp.TrainConfig(site="L0.mlp", kind="transcoder", k=4, **same),
        interp.TrainConfig(site="L2.z", activation="gated", **same),
        interp.TrainConfig(site="L0-1.mlp", kind="cross_layer_transcoder", activation="jumprelu", **same),
    ])  # fmt: skip
    assert list(made) == [
        "L0.mlp-transcoder-topk-32-k4", "L2.z-sae-gated-32-s2",
        "L0-1.mlp-cross_layer_transcoder-jumprelu-32-s0.3",
    ]  # fmt: skip
    assert all(one.training_record["loss"].isfinite().all() for one in made.values())


def test_batches_of_one_row_have_no_variance(store):
    made = interp.train(store, **{**SMALL, "batch": 1, "tokens": 3})
    assert made.training_record["fvu"].isnan().all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_stores_in_half_precision(store, tmp_path, dtype):
    values = store.rows(range(600))
    half = values.to("cpu", getattr(torch, dtype))
    site = "L2.resid_post"
    rows = Rows({site: half[site]}, half.tokens, half.document, half.position)
    layout = {"context": 128, "batch": 4, "packing": "whole", "bos": True, "special": False}
    held = plan(sites={site: (192,)}, pairs=(), dtype=dtype, layout=layout)
    with Writer.open(tmp_path, held) as writer:
        writer.write(0, rows, end=Cursor(1, 0, "e"), forwarded=30)
        writer.finish(1)
    made = interp.train(interp.ActivationStore.open(tmp_path), **{
        **SMALL, "site": site, "kind": "sae", "d_sae": 32, "tokens": 512 * 6})  # fmt: skip
    assert made.dtype == torch.float32
    assert made.training_record["fvu"][-1] < 0.5
    with pytest.raises(StoreError, match="600 rows, which make no batch of 2048"):
        interp.train(interp.ActivationStore.open(tmp_path), **{
            **SMALL, "site": site, "kind": "sae", "batch": 2048, "tokens": 4096})  # fmt: skip


def test_several_dictionaries_in_one_pass_are_what_each_is_alone(run, store):
    many = interp.train(store, **{**SMALL, "k": [6, 12], "d_sae": [96, 64]})
    assert len(many) == 4
    assert many["L0.mlp-transcoder-topk-96-k6"].hash == run[1].hash


def test_a_model_is_run_as_rows_are_asked_for(demo):
    made = interp.train(
        demo, corpus="demo", buffer=4096,
        **{**SMALL, "site": "L2.resid_post", "kind": "sae", "tokens": 512 * 40},
    )  # fmt: skip
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
        ({"site": "L1.mlp.input -> L0.mlp_out"}, DictionaryError, "which a run computes earlier"),
        ({"kind": "sae"}, TrainingError, "say site='L0.mlp_out', or kind='transcoder'"),
        ({"site": "L2.resid_post"}, TrainingError, "say site='L2.mlp'"),
        ({"site": "L*.mlp"}, TrainingError, "For several dictionaries give a list"),
        ({"site": "L0.mlp@3"}, TrainingError, "a part of a site"),
        ({"tokens": 512 * 30, "batch": 16385}, TrainingError, "make no batch"),
        ({"tensorboard": True}, TrainingError, "no folder to write to"),
        ({"corpus": "demo"}, TrainingError, "beside stored activations"),
        ({"kk": 3}, TrainingError, "nearest: 'k'"),
        ({"device": "gpu"}, StoreError, "device='gpu' cannot be had"),
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
