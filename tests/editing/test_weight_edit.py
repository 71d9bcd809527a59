"""Edits as values: what they add, which model they fit, and how they are kept."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import editing
from interp.editing import RankOne, WeightEdit, norm_matched
from interp.errors import ModelError, ResultError
from interp.results import Provenance


@pytest.fixture
def model(tiny_model):
    return tiny_model("llama")


@pytest.fixture
def edit(model):
    g = torch.Generator().manual_seed(0)
    changes = {
        "L1.W_out": RankOne(torch.randn(64, generator=g), torch.randn(32, generator=g)),
        "L0.H2.W_O": interp.Add(torch.randn(8, 32, generator=g)),
        "L2.W_in": interp.Replace(torch.randn(32, 64, generator=g)),
    }
    return WeightEdit(changes, Provenance.of(model, verb="test"), {"loss": 0.5})


def test_what_each_change_does_and_that_it_is_undone(model, edit):
    before = {k: v.clone() for k, v in model.hf.state_dict().items()}
    old, head = model.weights.layer(1).W_out.clone(), model.weights.layer(0).W_O.clone()
    with model.edited(edit):
        one = edit.changes["L1.W_out"]
        assert torch.equal(model.weights.layer(1).W_out, old + torch.outer(one.u, one.v))
        assert torch.equal(model.weights.layer(0).W_O[2], head[2] + edit.changes["L0.H2.W_O"].value)
        assert torch.equal(model.weights.layer(2).W_in, edit.changes["L2.W_in"].value)
    assert all(torch.equal(v, before[k]) for k, v in model.hf.state_dict().items())
    applied = edit.apply(model)
    del edit
    assert not torch.equal(model.weights.layer(1).W_out, old)
    applied.undo()
    assert all(torch.equal(v, before[k]) for k, v in model.hf.state_dict().items())


def test_saved_and_loaded_it_is_the_same_edit_and_a_rank_one_change_stays_small(
    model, edit, tmp_path
):
    path = edit.save(tmp_path / "edit.safetensors")
    loaded = WeightEdit.load(path)
    assert loaded.provenance == edit.provenance
    assert loaded.notes == {"loss": 0.5}
    with model.edited(edit):
        want = {k: v.clone() for k, v in model.hf.state_dict().items()}
    with model.edited(loaded):
        assert all(torch.equal(v, want[k]) for k, v in model.hf.state_dict().items())
    small = WeightEdit({"L1.W_out": edit.changes["L1.W_out"]}, edit.provenance)
    assert small.save(tmp_path / "small.safetensors").stat().st_size < 2000 < 64 * 32 * 4
    with pytest.raises(ResultError, match="holds 'WeightEdit', expected 'Covariance'"):
        interp.editing.Covariance.load(path)


def test_it_is_refused_by_a_model_that_it_was_not_made_for(model, edit, tiny_model):
    other = tiny_model("llama", rms_norm_eps=1e-3)
    assert other.weights_hash == model.weights_hash  # the weights decide, nothing else
    with other.edited({"W_U": interp.Scale(2.0)}):
        with pytest.raises(ModelError, match=r"made for .* but .* another model, or one that is"):
            other.edited(edit).__enter__()
        with other.edited(edit.changes):
            assert torch.equal(other.weights.layer(2).W_in, edit.changes["L2.W_in"].value)
    with pytest.raises(ModelError, match=r"rank-one change of \[64, 32\] does not fit"):
        model.edited({"L0.W_in": edit.changes["L1.W_out"]}).__enter__()


@pytest.mark.parametrize("ambient", [torch.no_grad, torch.inference_mode])
def test_an_edit_is_the_same_whatever_the_callers_gradient_mode(ambient, tiny_model):
    model, text = tiny_model("llama"), "The capital of France is"

    def made():
        config = editing.Rome(prefixes=(), steps=4)
        one = editing.rome(model, text, "France", " Lima", layer=1, covariance=None, config=config,
                           prefixes=())  # fmt: skip
        tuned = editing.finetune(model, text, " Lima", layer=1)
        return one.changes["L1.W_out"].v, tuned.changes["L1.W_out"].value

    plain = made()
    with ambient():
        within = made()
    assert all(map(torch.equal, plain, within))


def test_rank_one_is_added_in_float32_whatever_the_weight():
    w = torch.ones(2, 2, dtype=torch.bfloat16)
    u, v = torch.tensor([1.0, 0.0]), torch.tensor([0.01, 1.0])
    new = RankOne(u, v)(w)
    assert new.dtype == torch.bfloat16
    assert torch.equal(new, (w.float() + torch.outer(u, v)).bfloat16())


def test_the_null_has_the_norm_of_the_edit_and_no_direction_of_it(edit):
    kept = WeightEdit({n: edit.changes[n] for n in ("L1.W_out", "L0.H2.W_O")}, edit.provenance)
    null = norm_matched(kept, seed=3)
    one, random = kept.changes["L1.W_out"], null.changes["L1.W_out"]
    assert random.norm == pytest.approx(one.norm, rel=1e-5)
    assert abs(torch.cosine_similarity(one.u, random.u, dim=0)) < 0.5
    added = null.changes["L0.H2.W_O"].value
    assert float(added.norm()) == pytest.approx(
        float(kept.changes["L0.H2.W_O"].value.norm()), rel=1e-5
    )
    assert torch.equal(norm_matched(kept, seed=3).changes["L1.W_out"].u, random.u)
    assert not torch.equal(norm_matched(kept, seed=4).changes["L1.W_out"].u, random.u)
    with pytest.raises(ModelError, match="'L2.W_in' puts a whole weight in"):
        norm_matched(edit, seed=0)
