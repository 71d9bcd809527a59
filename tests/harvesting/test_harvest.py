"""What a harvest stores is what the model computed, however it is cut, packed and interrupted."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
import torch

import interp
from interp.corpora import Packing, pack
from interp.errors import BudgetError, CorpusError, RunError, StoreError
from interp.harvesting import forecast, verb, work
from interp.store.manifest import read_manifest
from tests import tiny
from tests.store.small import contents

SITES = ["L1.mlp", "L2.z", "L0.resid_post"]


def harvest(model, corpus, out, sites=SITES, **options):
    options = {"batch": 4, "dtype": "float32", "shard_mib": 1.0, "progress": False, **options}
    return interp.harvest(model, corpus, sites, out, **options)


@pytest.fixture(scope="module")
def whole(demo, corpus, tmp_path_factory):
    """A finished store and its folder."""
    out = tmp_path_factory.mktemp("harvest") / "store"
    return harvest(demo, corpus, out), out


@pytest.mark.parametrize("packing", ["isolated", "padded", "joined"])
def test_rows_are_those_of_a_run_of_the_same_batch_to_the_bit(demo, corpus, tmp_path, packing):
    store = harvest(demo, corpus, tmp_path / "s", packing=packing)
    start = 0
    for batch in pack(corpus, demo.tokens, Packing(128, 4, packing)):
        cache = demo.run(batch.tokens, save=store.sites, logits="none").cache
        rows = store.rows(slice(start, start + batch.n_kept))
        for site in store.sites:
            assert torch.equal(rows[site], cache[site][batch.keep])
        assert torch.equal(rows.tokens, batch.tokens.ids[batch.keep].int())
        start += batch.n_kept
    assert start == len(store)


@pytest.mark.parametrize("packing", ["isolated", "padded"])
def test_rows_are_those_of_each_text_alone(demo, corpus, tmp_path, packing):
    store = harvest(demo, corpus, tmp_path / "s", packing=packing, context=48, batch=5)
    bos = demo.tokens.bos_id
    for number, text in list(enumerate(corpus.documents()))[:12]:
        ids = [bos, *demo.tokenizer(text, add_special_tokens=False)["input_ids"]]
        for start in [0, *range(48, len(ids), 47)]:  # later pieces have a BOS of their own in front
            piece = [bos, *ids[start : start + 47]] if start else ids[:48]
            first = start or 1  # the BOS itself is not kept
            cache = demo.run(piece, save=store.sites, logits="none").cache
            rows = store.at(number, torch.arange(first, first + len(piece) - 1))
            for site in store.sites:
                torch.testing.assert_close(rows[site], cache[site][0, 1:], atol=1e-5, rtol=1e-5)


def test_bfloat16_is_the_cast(demo, corpus, whole, tmp_path):
    store = harvest(demo, corpus, tmp_path / "s", dtype="bfloat16")
    rows, full = store.rows(slice(None)), whole[0].rows(slice(None))
    for site in store.sites:
        assert torch.equal(rows[site], full[site].bfloat16())


def test_only_the_layers_that_are_needed_run(demo, corpus, tmp_path):
    calls = []
    blocks = demo.hf.gpt_neox.layers
    handles = [
        b.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, b in enumerate(blocks)
    ]
    handles.append(demo.hf.lm_head.register_forward_hook(lambda *_: calls.append("unembed")))
    try:
        harvest(demo, corpus, tmp_path / "s", sites="L1.mlp_post", tokens=500)
    finally:
        for handle in handles:
            handle.remove()
    assert set(calls) <= {0, 1}
    assert 0 in calls


def test_the_manifest_says_what_it_is(demo, corpus, whole):
    manifest = read_manifest(whole[1])
    assert manifest.complete
    assert manifest.pairs == (("L1.mlp.input", "L1.mlp_out"),)
    assert manifest.weights_hash == demo.weights_hash
    assert manifest.layout["packing"] == "isolated"
    assert manifest.layout["batch"] == 4
    assert manifest.corpus == corpus.identity
    assert len(manifest.shards) > 4
    assert sum(r.forwarded for r in manifest.shards) == sum(
        int(b.tokens.n_real.sum()) for b in pack(corpus, demo.tokens, Packing(128, 4))
    )


def test_so_many_tokens_and_no_more(demo, corpus, whole, tmp_path):
    store = harvest(demo, corpus, tmp_path / "s", tokens=1234)
    assert len(store) == 1234
    rows, full = store.rows(slice(None)), whole[0].rows(slice(0, 1234))
    assert torch.equal(rows["L1.mlp_out"], full["L1.mlp_out"])
    assert torch.equal(rows.document, full.document)


def test_a_finished_store_is_opened_without_running(demo, corpus, whole, monkeypatch):
    monkeypatch.setattr(work, "capture", None)
    before = contents(whole[1])
    again = harvest(demo, corpus, whole[1])
    assert len(again) == len(whole[0])
    assert contents(whole[1]) == before
    settled_anew = harvest(demo, corpus, whole[1], batch="auto", shard_mib=None)
    assert len(settled_anew) == len(whole[0])  # batch and shards as the store has them


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sites": ["L1.mlp"]}, "sites: the store has"),
        ({"dtype": "bfloat16"}, 'dtype: the store has "float32", here "bfloat16"'),
        ({"context": 64}, "layout context: the store has 128, here 64"),
        ({"batch": 8}, "layout batch: the store has 4, here 8"),
        ({"tokens": 500}, "tokens: the store has null, here 500"),
        ({"special": True}, "layout special"),
        ({"resume": False}, "holds a store already"),
    ],
)
def test_another_harvest_into_the_same_folder_is_refused_by_name(demo, corpus, whole, change, text):
    before = contents(whole[1])
    with pytest.raises(StoreError, match=text):
        harvest(demo, corpus, whole[1], **change)
    assert contents(whole[1]) == before


def test_other_weights_and_other_data_are_refused(demo, corpus, whole):
    with pytest.raises(StoreError, match=r"weights: the store has demo \("):
        harvest(demo.random_twin(), corpus, whole[1])
    with pytest.raises(StoreError, match="data seed: the store has 3, here 4"):
        harvest(demo, interp.corpora.demo(60, seed=4), whole[1])


def test_a_corpus_that_only_looks_the_same_is_refused(demo, tmp_path):
    """A generator has no identity of its own: its documents are compared."""
    texts = list(interp.corpora.demo(20, seed=1).documents())
    harvest(demo, lambda: iter(texts), tmp_path / "s")
    harvest(demo, lambda: iter(texts), tmp_path / "s")
    with pytest.raises(CorpusError, match="first .* documents"):
        harvest(demo, lambda: iter([*texts[1:], texts[0]]), tmp_path / "s")


def test_a_stream_that_goes_on_is_not_the_finished_one(demo, tmp_path):
    texts = list(interp.corpora.demo(20, seed=1).documents())
    harvest(demo, lambda: iter(texts[:12]), tmp_path / "s")
    with pytest.raises(CorpusError, match="goes on after document 11, with which the finished"):
        harvest(demo, lambda: iter(texts), tmp_path / "s")
    some = harvest(demo, lambda: iter(texts[:12]), tmp_path / "t", tokens=300)
    assert len(harvest(demo, lambda: iter(texts), tmp_path / "t", tokens=300)) == len(some)


def test_what_fails_before_its_first_shard_binds_nobody(demo, corpus, whole, tmp_path, monkeypatch):
    out = tmp_path / "s"
    with pytest.raises(CorpusError, match="no tokens"):
        harvest(demo, [""], out)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(forecast.shutil, "disk_usage", lambda place: usage._replace(free=1000))
        with pytest.raises(StoreError, match="harvest fewer tokens"):
            harvest(demo, corpus, out, context=64)
    with monkeypatch.context() as patch:
        patch.setattr(work, "capture", _interrupted)
        with pytest.raises(KeyboardInterrupt), pytest.warns(match="with 0 shards finished"):
            harvest(demo, corpus, out, dtype="bfloat16")
    assert list(out.iterdir()) == []
    harvest(demo, corpus, out)
    assert contents(out) == contents(whole[1])


def _interrupted(*args, **options):
    raise KeyboardInterrupt


class Stopped(Exception):  # noqa: N818
    """What stops a harvest in these tests."""


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stopped])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    demo, corpus, whole, tmp_path, monkeypatch, stop
):
    out, calls = tmp_path / "s", 0
    real = work.capture

    def stopping(*args, **options):
        nonlocal calls
        calls += 1
        if calls in (3, 9):
            raise stop
        return real(*args, **options)

    monkeypatch.setattr(work, "capture", stopping)
    for _ in range(2):
        with pytest.raises(stop), pytest.warns() if stop is KeyboardInterrupt else _nothing():
            harvest(demo, corpus, out)
        assert not read_manifest(out).complete
    monkeypatch.setattr(work, "capture", real)
    store = harvest(demo, corpus, out, batch="auto", shard_mib=None)
    assert store.complete
    assert contents(out) == contents(whole[1])


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_a_damaged_shard_is_computed_anew(demo, corpus, whole, tmp_path):
    out = tmp_path / "s"
    shutil.copytree(whole[1], out)
    (out / "000002.safetensors").unlink()
    (out / "000000.safetensors").write_bytes(b"short")
    with pytest.warns(UserWarning, match="000000.safetensors, 000002.safetensors"):
        harvest(demo, corpus, out)
    assert contents(out) == contents(whole[1])


def test_batches_that_do_not_fit_are_halved_before_the_store_is_begun(
    demo, corpus, tmp_path, monkeypatch
):
    real = forecast.execute

    def small_machine(anatomy, tokens, **options):
        if len(tokens) > 4:
            raise torch.OutOfMemoryError("no room")
        return real(anatomy, tokens, **options)

    monkeypatch.setattr(forecast, "execute", small_machine)
    harvest(demo, corpus, tmp_path / "s", batch="auto")
    assert read_manifest(tmp_path / "s").layout["batch"] == 4


def test_out_of_memory_later_keeps_what_is_finished(demo, corpus, whole, tmp_path, monkeypatch):
    real, calls = work.capture, 0

    def full(*args, **options):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise torch.OutOfMemoryError("no room")
        return real(*args, **options)

    monkeypatch.setattr(work, "capture", full)
    with pytest.raises(BudgetError, match="out of memory in shard .* 4 rows a batch"):
        harvest(demo, corpus, tmp_path / "s")
    harvest(demo, corpus, tmp_path / "s")
    assert contents(tmp_path / "s") == contents(whole[1])


def test_a_disk_that_fills_up_keeps_what_is_finished(demo, corpus, whole, tmp_path, monkeypatch):
    real, written = os.write, 0

    def full(descriptor, piece):
        nonlocal written
        written += len(piece)
        if written > 3_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, piece)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="the disk is full.*Finished shards are kept"):
        harvest(demo, corpus, tmp_path / "s")
    monkeypatch.setattr(os, "write", real)
    left = interp.ActivationStore.open(tmp_path / "s")
    assert 0 < len(left) < len(whole[0])
    assert not list((tmp_path / "s").glob(".*.tmp"))
    harvest(demo, corpus, tmp_path / "s")
    assert contents(tmp_path / "s") == contents(whole[1])


def test_a_family_that_cannot_pack_gives_each_text_a_row(tmp_path, capsys):
    model = interp.load(tiny.shared("bloom"))
    texts = [tiny.tokens(1, n, seed=n)[0].tolist() for n in (5, 9, 12, 30)]
    store = harvest(model, texts, tmp_path / "s", ["L2.resid_post"], context=16, progress=None)
    assert "note: each text has a row of its own, since bloom" in capsys.readouterr().err.lower()
    assert read_manifest(tmp_path / "s").layout["packing"] == "padded"
    alone = model.run(texts[1], save="L2.resid_post").cache["L2.resid_post"][0]
    rows = store.at(1, torch.arange(9))
    torch.testing.assert_close(rows["L2.resid_post"], alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(RunError, match="packing='isolated' cannot be had"):
        harvest(model, texts, tmp_path / "t", ["L2.resid_post"], packing="isolated")


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "mistral", "opt", "gptj", "falcon"])
def test_families_give_the_rows_of_each_text_alone(family, tmp_path):
    """Also where a sliding window is shorter than the text: those are padded."""
    model = interp.load(tiny.shared(family))
    texts = [tiny.tokens(1, n, seed=n)[0].tolist() for n in (5, 9, 7, 20, 3)]
    store = harvest(
        model, texts, tmp_path / "s", ["L1.mlp", "L2.resid_post"], context=32, special=True
    )
    for number, text in enumerate(texts):
        cache = model.run(text, save=store.sites, logits="none").cache
        rows = store.at(number, torch.arange(len(text)))
        for site in store.sites:
            torch.testing.assert_close(rows[site], cache[site][0], atol=2e-5, rtol=1e-5)


def test_a_corpus_of_special_tokens_alone_is_refused(demo, tmp_path):
    bos = demo.tokens.bos_id
    with pytest.raises(CorpusError, match="no token to keep"):
        harvest(demo, [[bos, bos], [bos]], tmp_path / "s")
    store = harvest(demo, [[bos, bos], [bos]], tmp_path / "t", special=True)
    assert len(store) == 3


def test_verb_is_the_public_one():
    assert verb.harvest is interp.harvest
