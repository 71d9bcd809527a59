"""Models whose weights accelerate keeps partly on disk (``device_map``): the same numbers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp
from interp.errors import ModelError
from interp.paths import data_dir


@pytest.fixture(scope="module")
def plain():
    return interp.load("demo")


@pytest.fixture(scope="module")
def offloaded(tmp_path_factory):
    """The demo model with two of its four blocks on disk."""
    folder = data_dir() / "models" / "demo"
    names = ["embed_in", "rotary_emb", "emb_dropout", "final_layer_norm"]
    places = {f"gpt_neox.{name}": "cpu" for name in names} | {"lm_head": "cpu"}
    places |= {f"gpt_neox.layers.{i}": "disk" if i in (1, 2) else "cpu" for i in range(4)}
    hf = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map=places,
        offload_folder=tmp_path_factory.mktemp("disk"),
        dtype=torch.float32,
    )
    assert any(p.device.type == "meta" for p in hf.parameters())
    return interp.load(hf, tokenizer=AutoTokenizer.from_pretrained(folder))


def test_every_site_is_proven_and_has_the_same_values(plain, offloaded):
    assert offloaded.report().proven == plain.report().proven
    one, two = (
        m.run("The capital of France is", save=["all", "L*.result"][0]) for m in (plain, offloaded)
    )
    assert torch.equal(one.logits, two.logits)
    for site in one.cache:
        assert torch.equal(one.cache[site], two.cache[site]), site
    heads = [
        m.run("The capital of Peru is", save="L*.result").cache["L*.result"]
        for m in (plain, offloaded)
    ]
    assert torch.equal(*heads)


def test_it_is_the_same_model(plain, offloaded):
    assert offloaded.weights_hash == plain.weights_hash
    assert offloaded.device == plain.device


def test_its_activations_are_harvested(plain, offloaded, tmp_path):
    corpus = interp.corpora.demo(10, seed=0)
    one, two = (
        interp.harvest(m, corpus, ["L1.mlp", "L3.z"], tmp_path / str(i), batch=2, progress=False)
        for i, m in enumerate((plain, offloaded))
    )
    for site in one.sites:
        assert torch.equal(one.rows(slice(None))[site], two.rows(slice(None))[site])


def test_sweeps_take_the_plain_path_and_weights_are_not_viewed(plain, offloaded):
    pairs = [
        m.prompts("The capital of France is", "The capital of Japan is") for m in (plain, offloaded)
    ]
    one, two = (
        interp.patch(m, p, "L*.resid_pre") for m, p in zip((plain, offloaded), pairs, strict=True)
    )
    assert two.engine.startswith("plain")
    torch.testing.assert_close(one.values, two.values, atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="are offloaded by its device_map"):
        _ = offloaded.W_Q
