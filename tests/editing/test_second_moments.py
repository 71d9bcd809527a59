"""The second moment of keys: what it sums, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import interp
from interp.editing import Covariance, covariance
from interp.errors import BudgetError, ModelError, PromptError, RunError, SiteError
from tests import tiny

TEXTS = ["The capital of France is Paris", "The capital", "Peru is Lima and Japan", "of"]


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("gpt2")


def by_hand(model, layer):
    """Mean of k kᵀ over the tokens of each text on its own, without any padding."""
    keys = [model.run(text, save=f"L{layer}.mlp_post").cache[f"L{layer}.mlp_post"][0].double()
            for text in TEXTS]  # fmt: skip
    keys = torch.cat(keys)
    return keys.T @ keys / len(keys), len(keys)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_it_is_the_mean_over_real_tokens_whatever_the_batch(model, batch):
    found = covariance(model, TEXTS, batch=batch)
    assert found.layers == (0, 1, 2)
    for layer in found.layers:
        want, n = by_hand(model, layer)
        assert found.n_tokens == n
        assert found.at(layer).dtype == torch.float64
        assert torch.allclose(found.at(layer), want, atol=1e-6)


def test_tokens_do_as_texts_and_one_layer_as_all(model):
    whole, ids = covariance(model, TEXTS), model.batch(TEXTS)
    found = covariance(model, ids, 1)
    assert found.layers == (1,)
    assert torch.allclose(found.at(1), whole.at(1), atol=1e-12)
    assert found.provenance.prompts_hash == whole.provenance.prompts_hash
    assert covariance(model, TEXTS[:2]).provenance.prompts_hash != whole.provenance.prompts_hash


def test_solving(model):
    found, key = covariance(model, TEXTS, 0), torch.randn(128, generator=torch.manual_seed(0))
    moment = found.at(0)
    damped = moment + 0.1 * moment.diagonal().mean() * torch.eye(128, dtype=torch.float64)
    solved = found.solve(0, key, damping=0.1)
    assert torch.allclose(damped @ solved, key.double(), atol=1e-6)
    with pytest.raises(ModelError, match=r"singular with damping=0: it was measured on \d+ tokens"):
        found.solve(0, key, damping=0.0)


def test_saved_loaded_and_tied_to_its_model(model, tmp_path, tiny_model):
    found = covariance(model, TEXTS, (0, 2))
    loaded = Covariance.load(found.save(tmp_path / "keys.safetensors"))
    assert torch.equal(loaded.moments, found.moments)
    assert (loaded.layers, loaded.n_tokens) == (found.layers, found.n_tokens)
    assert loaded.provenance == found.provenance
    loaded.check(model)
    with pytest.raises(ModelError, match=r"measured on .* measure it on this model"):
        loaded.check(tiny_model("gpt2", n_layer=2))
    with model.edited({"W_pos": interp.Zero()}), pytest.raises(ModelError, match="measure it on"):
        loaded.check(model)
    with pytest.raises(ModelError, match=r"has layers \[0, 2\], not 1"):
        loaded.at(1)
    assert "layers [0, 2], d_mlp 128" in repr(loaded)


def test_ctrl_c_leaves_what_is_summed_so_far(model, monkeypatch):
    from interp.editing import second_moments

    add, calls = second_moments._add, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return add(*args)

    monkeypatch.setattr(second_moments, "_add", interrupted)
    with pytest.warns(UserWarning, match="covariance is of the first"):
        found = covariance(model, TEXTS, batch=1)
    assert torch.allclose(found.moments, covariance(model, TEXTS[:2]).moments, atol=1e-6)


@pytest.mark.bad_input
def test_ctrl_c_between_two_layers_leaves_each_the_mean_of_what_it_read(model, monkeypatch):
    from interp.editing import second_moments

    run, calls = second_moments.execute, []

    class Cache(dict):
        def __getitem__(self, site):
            if len(calls) == 3 and site == "L1.mlp_post":
                raise KeyboardInterrupt
            return super().__getitem__(site)

    def execute(*args, **options):
        calls.append(1)
        found = run(*args, **options)
        return dataclasses.replace(found, cache=Cache(found.cache))

    monkeypatch.setattr(second_moments, "execute", execute)
    with pytest.warns(UserWarning, match="covariance is of the first"):
        found = covariance(model, TEXTS, batch=1)
    monkeypatch.undo()
    for layer, texts in ((0, TEXTS[:3]), (1, TEXTS[:2])):
        assert torch.allclose(found.at(layer), covariance(model, texts).at(layer), atol=1e-6)


@pytest.mark.bad_input
def test_one_row_of_ids_is_one_text(model):
    row = model.to_tokens(" ".join(TEXTS[:1] * 6))[0]
    assert len(row) > 16
    assert torch.equal(covariance(model, row).moments, covariance(model, row[None]).moments)


@pytest.mark.bad_input
def test_errors(model, monkeypatch):
    for texts in ([], "The capital"):
        with pytest.raises(PromptError, match="expected a list of texts"):
            covariance(model, texts)
    with pytest.raises(PromptError, match="got a generator; expected a list of texts"):
        covariance(model, (text for text in TEXTS))
    with pytest.raises(RunError, match="batch=0; expected 1 or more"):
        covariance(model, TEXTS, batch=0)
    for layers in ([3], "1", [0, 0]):
        with pytest.raises(ModelError, match=r"layers=\[.*\]: expected different ones of 0 to 2"):
            covariance(model, TEXTS, layers)
    with pytest.raises(SiteError, match="mixture of experts"):
        covariance(interp.load(tiny.shared("mixtral"), check=False), tiny.tokens())
    monkeypatch.setattr("interp.editing.second_moments.available", lambda device: 1000)
    with pytest.raises(BudgetError, match="measure fewer layers at a time"):
        covariance(model, TEXTS)
