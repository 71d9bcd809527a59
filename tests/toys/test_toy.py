"""Toy transformers: their attention by the formulas, their sites, and that they are models of this library."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp import toys
from interp.errors import CheckpointError, RunError, SiteError, ToyError
from interp.toys import Toy
from tests import tiny

SHAPE = {"d_out": 6, "n_ctx": 7, "n_layers": 2, "n_heads": 2, "d_model": 8}


def ids(rows=3, width=7, seed=0):
    return torch.randint(6, (rows, width), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "linear"])
def test_attention_is_by_the_formula(attention, causal):
    toy = toys.transformer(d_vocab=6, attention=attention, causal=causal, **SHAPE)
    saved = toy.run(ids(), save=["L1.q", "L1.k", "L1.v", "L1.pattern", "L1.z"]).saved
    q, k, v = (saved[f"L1.{name}"].transpose(1, 2) for name in "qkv")
    scores = q @ k.transpose(-1, -2) / math.sqrt(4)
    hidden = (
        torch.ones(7, 7, dtype=torch.bool).triu(1)
        if causal
        else torch.zeros(7, 7, dtype=torch.bool)
    )
    if attention == "softmax":
        pattern = scores.masked_fill(hidden, -math.inf).softmax(-1)
    else:
        pattern = (scores.sigmoid() if attention == "sigmoid" else scores).masked_fill(hidden, 0.0)
    torch.testing.assert_close(saved["L1.pattern"], pattern, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(saved["L1.z"], (pattern @ v).transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_a_scale_is_what_scores_are_divided_by():
    toy = toys.transformer(d_vocab=6, scale=3.0, causal=False, **SHAPE)
    saved = toy.run(ids(), save=["L0.q", "L0.k", "L0.attn_scores"]).saved
    scores = saved["L0.q"].transpose(1, 2) @ saved["L0.k"].transpose(1, 2).transpose(-1, -2) / 3
    torch.testing.assert_close(saved["L0.attn_scores"], scores, rtol=1e-5, atol=1e-6)


def test_positions():
    together = ids(1, 4)
    swapped = together[:, [1, 0, 2, 3]]

    def moved(**options):
        toy = toys.transformer(d_vocab=6, seed=3, **{**SHAPE, "n_layers": 1, **options})
        before, after = (toy.run(x).logits[0, -1] for x in (together, swapped))
        return float((before - after).abs().max())

    assert moved(positions="none") < 1e-6  # the last position reads a set
    assert moved(positions="learned") > 1e-4
    assert moved(positions="rotary") > 1e-4


def test_a_toy_is_a_model_of_this_library():
    toy = toys.transformer(d_vocab=6, d_mlp=16, **SHAPE)
    x = ids(2)
    run = toy.model.run(x, save="L0.resid_post", edit={"L0.H1.z": interp.Zero()})
    mine = toy.run(x, save="L0.resid_post", edit={"L0.H1.z": interp.Zero()})
    assert torch.equal(run.logits, mine.logits)
    assert torch.equal(run.cache["L0.resid_post"], mine.saved["L0.resid_post"])
    assert not torch.equal(mine.logits, toy.run(x).logits)
    with torch.no_grad():
        toy.hf.lm_head.weight.mul_(2)  # the weights are shared, not copied
    assert torch.equal(toy.model.run(x).logits, toy.run(x).logits)
    with pytest.raises(SiteError):
        toy.run(x, save="L5.z")


def test_sites_of_one_position_and_several_layers():
    toy = toys.transformer(d_vocab=6, **SHAPE)
    x = ids(2)
    saved = toy.run(x, save=["L*.resid_post", "L1.H0.z@-1"]).saved
    whole = toy.run(x, save="L1.z").saved["L1.z"]
    assert torch.equal(saved["L1.H0.z@-1"].squeeze(1), whole[:, -1, 0])
    assert {"L0.resid_post", "L1.resid_post", "L1.H0.z@-1"} == set(saved)
    with pytest.raises(RunError, match="from -7 to 6"):
        toy.run(x, save="L0.z@7")


def test_gradients_reach_what_was_saved():
    toy = toys.transformer(d_vocab=6, **SHAPE)
    run = toy.run(ids(), save="L0.resid_post", grad=True)
    (gradient,) = torch.autograd.grad(run.logits.sum(), run.saved["L0.resid_post"])
    assert float(gradient.abs().max()) > 0
    assert not toy.run(ids(), save="L0.resid_post").logits.requires_grad
    with pytest.raises(RunError, match="no logits"):
        _ = toy.run(ids(), logits="none").logits


def test_vectors():
    toy = toys.transformer(d_in=3, **SHAPE)
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    run = toy.run(x, save="L0.resid_pre")
    assert run.logits.shape == (2, 7, 6)
    assert torch.equal(
        toy.run(2 * x, edit={"L0.resid_pre": interp.Replace(run.saved["L0.resid_pre"])}).logits,
        run.logits,
    )
    with pytest.raises(ToyError, match="reads vectors"):
        _ = toy.model
    with pytest.raises(RunError, match=r"vectors \[batch, pos, d_in\]"):
        toy.run(ids())


def test_features_are_fixed_vectors_behind_a_trained_map():
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    toy = toys.transformer(features=features, **SHAPE)
    trained = {id(p) for p in toy.hf.parameters() if p.requires_grad}
    table = toy.hf.get_input_embeddings().weight
    assert torch.equal(table, features)
    assert id(table) not in trained


def test_experts_weigh_and_sum_to_what_the_block_adds():
    toy = toys.transformer(d_vocab=6, d_mlp=16, experts=4, experts_per_token=2, **SHAPE)
    routed = toys.routing(toy, ids())
    added = toy.run(ids(), save=["L*.mlp_out"]).saved
    for layer in range(2):
        mixed = torch.einsum("bpe,bped->bpd", routed.weights[layer], routed.written[layer])
        torch.testing.assert_close(mixed, added[f"L{layer}.mlp_out"], rtol=1e-5, atol=1e-6)
    assert torch.allclose(routed.weights.sum(-1), torch.ones(2, 3, 7))
    assert int((routed.weights > 0).sum(-1).max()) == 2
    torch.testing.assert_close(routed.load().sum(-1), torch.full((2,), 2.0, dtype=torch.float64))


def test_an_expert_that_is_off_is_never_chosen_and_the_next_takes_its_place():
    toy = toys.transformer(d_vocab=6, d_mlp=16, experts=4, experts_per_token=2, **SHAPE)
    x, before = ids(), toys.routing(toy, ids())
    with toys.without_experts(toy, {0: [1]}):
        off = toys.routing(toy, x)
        logits = toy.run(x).logits
        assert torch.equal(toy.model.run(x).logits, logits)
    assert not (off.chosen[0] == 1).any()
    unaffected = ~(before.chosen[0] == 1).any(-1)
    assert unaffected.any()
    torch.testing.assert_close(off.weights[0][unaffected], before.weights[0][unaffected])
    assert torch.equal(toys.routing(toy, x).weights, before.weights)
    assert not torch.equal(logits, toy.run(x).logits)
    with pytest.raises(ToyError, match="3 of 4 experts of layer 1 cannot be off"):
        toys.without_experts(toy, {1: [0, 1, 2]}).__enter__()
    with pytest.raises(ToyError, match="expert 4 of layer 0: expected 0 to 3"):
        toys.without_experts(toy, {0: [4]}).__enter__()
    with pytest.raises(ToyError, match="has no experts"):
        toys.routing(toys.transformer(d_vocab=6, d_mlp=16, **SHAPE), x)


def test_a_toy_is_read_as_it_was_written(tmp_path):
    toy = toys.transformer(
        d_vocab=6, d_mlp=16, experts=3, attention="sigmoid", positions="rotary", **SHAPE
    )
    folder = toy.save(tmp_path / "toy")
    read = Toy.load(folder)
    assert torch.equal(read.run(ids()).logits, toy.run(ids()).logits)
    assert torch.equal(interp.load(str(folder)).run(ids()).logits, toy.run(ids()).logits)
    with pytest.raises(CheckpointError, match="no toy in"):
        Toy.load(tmp_path / "none")
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match="lacks 1 tensors"
    ):  # and not random ones in their place
        Toy.load(folder)


def test_another_familys_checkpoint_is_no_toy(tmp_path):
    tiny.build("gpt2").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a gpt2 model and no toy"):
        Toy.load(tmp_path)


def test_the_seed_decides_the_weights_and_nothing_else_is_drawn_from():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, same, other = (
        toys.transformer(d_vocab=6, seed=s, **SHAPE).run(ids()).logits for s in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "was given none"),
        ({"d_vocab": 6, "d_in": 3}, "d_vocab and d_in"),
        ({"d_vocab": 6, "attention": "softmaxx"}, "nearest: 'softmax'"),
        ({"d_vocab": 6, "n_heads": 3}, "d_model=8 cannot be shared by 3 heads"),
        ({"d_vocab": 6, "experts": 2}, "give d_mlp="),
        ({"d_vocab": 6, "experts": 2, "d_mlp": 4, "experts_per_token": 3}, "3 of 2 experts"),
        ({"d_vocab": 6, "positions": "rotary", "d_head": 3}, "d_head=3 is odd"),
        ({"features": torch.zeros(4)}, "a row for each token"),
        ({"d_vocab": 6, "n_heads": 0}, "n_heads=0; expected a whole number above 0"),
        ({"d_vocab": 6, "n_layers": 0}, "n_layers=0"),
        ({"d_vocab": 6, "d_model": 8.0}, "d_model=8.0; expected a whole number"),
        ({"d_vocab": 6, "scale": 0.0}, "scale=0.0; expected a number above 0"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_go_together(options, told):
    with pytest.raises(ToyError, match=told):
        toys.transformer(**{**SHAPE, **options})


def test_what_a_toy_cannot_read():
    toy = toys.transformer(d_vocab=6, **SHAPE)
    with pytest.raises(RunError, match="this toy has tokens 0 to 5; given 0 to 6"):
        toy.run(torch.tensor([[0, 6]]))
    with pytest.raises(RunError, match="given -1 to 2"):
        toy.run(torch.tensor([[-1, 2]]))
    with pytest.raises(RunError, match="this toy reads vectors of 3"):
        toys.transformer(d_in=3, **SHAPE).run(torch.zeros(1, 2, 4))
