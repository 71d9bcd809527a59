"""Scoped weight edits: they reach the parameters of every family, and undo themselves to the bit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

import interp
from interp.errors import ModelError, SiteError
from interp.models.weights import Weights
from tests import tiny
from tests.models.cases import CASES

IN_A_BLOCK = ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V", "W_O", "b_O", "W_in", "b_in", "W_gate",
              "b_gate", "W_out", "b_out")  # fmt: skip


def make(case="llama"):
    name = case if case in tiny.FALCONS else case.partition("-")[0]
    return interp.load(tiny.build(name, **CASES.get(case, {})), check=False)


def bits(model):
    return {k: v.clone() for k, v in model.hf.state_dict().items()}


def same(model, before):
    now = model.hf.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)


def writable(weights, layer, name):
    """The weight as it is read; None where the family has none or only zeros in its place."""
    try:
        value = getattr(weights.layer(layer), name)
    except ModelError:
        return None
    return None if name.startswith("b_") and not value.any() else value


@pytest.mark.parametrize("case", CASES)
def test_each_weight_of_each_family_is_written_alone_and_put_back(case):
    model = make(case)
    before, weights = bits(model), Weights(model.anatomy)
    for name in IN_A_BLOCK:
        old = writable(weights, 1, name)
        if old is None:
            continue
        old = old.clone()
        new = torch.randn(old.shape, generator=torch.Generator().manual_seed(3))
        others = {n: getattr(weights.layer(1), n).clone() for n in IN_A_BLOCK
                  if n != name and writable(weights, 1, n) is not None}  # fmt: skip
        with model.edited({f"L1.{name}": new}) as edited:
            assert edited is model
            assert torch.equal(getattr(weights.layer(1), name), new)
            assert all(torch.equal(getattr(weights.layer(1), n), v) for n, v in others.items())
            changed = [k for k, v in model.hf.state_dict().items() if not torch.equal(v, before[k])]
            assert len(changed) == 1
        assert same(model, before)


@pytest.mark.parametrize("case", ["llama", "gpt2", "bloom", "falcon-grouped", "falcon"])
def test_a_head_is_written_alone(case):
    model = make(case)
    weights, before = Weights(model.anatomy), bits(model)
    for name in ("W_Q", "W_O"):
        old = getattr(weights.layer(2), name).clone()
        with model.edited({f"L2.H3.{name}": lambda w: w + 1}):
            new = getattr(weights.layer(2), name)
            assert torch.equal(new[:3], old[:3])
            assert torch.equal(new[3], old[3] + 1)
        assert same(model, before)


def test_what_the_edit_does_is_what_the_model_computes():
    model, ids = make("gpt_neox"), tiny.tokens()
    zero = model.run(ids, edit={"L1.mlp_out": lambda x: 0 * x}).logits
    with model.edited({"L1.W_out": interp.Zero(), "L1.b_out": interp.Zero()}):
        assert torch.equal(model.run(ids).logits, zero)
        assert torch.equal(model.hf(ids).logits, zero)
    one = model.run(ids, edit={"L1.H2.z": lambda z: 0 * z}).logits
    with model.edited({"L1.H2.W_O": interp.Scale(0.0)}):
        assert torch.allclose(model.run(ids).logits, one, atol=1e-5)


def test_names_layers_and_values():
    model = make("gpt2")
    names = ["L0.W_in", "blocks.0.mlp.W_in", "transformer.h.0.mlp.c_fc.weight"]
    for name in names:  # GPT-2's Conv1D has TransformerLens's layout
        with model.edited({name: torch.ones(32, 128)}):
            assert torch.equal(model.weights.layer(0).W_in, torch.ones(32, 128))
    with model.edited({"L*.b_out": lambda b: b + 2, "W_pos": interp.Zero()}):
        assert float(model.b_out.mean()) > 1.5
        assert not model.W_pos.any()
    old = model.b_in[1]
    with model.edited({"L1.b_in": lambda b: b + 1, "L0-1.b_in": lambda b: 2 * b}):  # in that order
        assert torch.equal(model.b_in[1], 2 * (old + 1))
    assert torch.equal(model.b_in[1], old)
    other = make("gpt2").weights.layer(2).W_out
    with model.edited({"L0.W_out": other}):
        assert torch.equal(model.weights.layer(0).W_out, other)


def test_nested_edits_and_functions_of_the_value_at_hand():
    model = make()
    before = bits(model)
    w = model.weights.layer(0).W_out.clone()
    with model.edited({"L0.W_out": lambda x: x + 1}):
        with model.edited({"L0.W_out": lambda x: 2 * x, "W_U": interp.Zero()}):
            assert torch.equal(model.weights.layer(0).W_out, 2 * (w + 1))
        assert torch.equal(model.weights.layer(0).W_out, w + 1)
        assert model.W_U.any()
    assert same(model, before)


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_undone_after_an_exception(stop):
    model = make()
    before = bits(model)
    with pytest.raises(stop), model.edited({"L0.W_out": interp.Zero(), "L1.H0.W_O": interp.Zero()}):  # noqa: PT012
        assert not same(model, before)
        raise stop
    assert same(model, before)

    def stops(w):
        raise stop

    with pytest.raises(stop), model.edited({"L0.W_out": interp.Zero(), "L1.W_out": stops}):
        pass
    assert same(model, before)


def test_ctrl_c_while_it_is_undone_does_not_stop_the_undoing(monkeypatch):
    from interp.models.writable import Place

    model = make()
    before, write, calls = bits(model), Place.write, []

    def interrupted(place, value):
        calls.append(place.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(place, value)

    monkeypatch.setattr(Place, "write", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        model.edited({"L0.W_out": interp.Zero(), "L1.W_out": interp.Zero()}),
    ):
        pass
    assert same(model, before)


def test_ctrl_c_while_weights_are_counted_leaves_nothing_written(monkeypatch):
    from interp.models import edited

    model = make()
    before, versions = bits(model), edited._versions
    for call in (2, 3, 4):  # after the last write; before and after the old values are copied back
        calls = []

        def interrupted(model, call=call, calls=calls):
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt
            return versions(model)

        assert model.weights_hash
        monkeypatch.setattr(edited, "_versions", interrupted)
        with pytest.raises(KeyboardInterrupt), model.edited({"L0.W_out": interp.Zero()}):
            pass
        assert same(model, before)
        assert not edited._standing[model.hf]


def test_an_edit_that_ends_too_early_takes_the_inner_ones_with_it_and_says_so():
    model = make()
    before = bits(model)
    outer, inner = (model.edited({"L0.W_out": lambda w, n=n: w * n}) for n in (2, 3))
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(ModelError, match=r"edit of L0.W_out ended while 1 made inside it still"):
        outer.undo()
    assert same(model, before)
    inner.undo()  # without effect
    assert same(model, before)
    again = model.edited({"L0.W_in": interp.Zero()})
    with again, pytest.raises(ModelError, match="stands already"):
        again.__enter__()
    assert same(model, before)


def test_what_stays_dtype_flags_objects_and_hash():
    model = interp.load(tiny.build("llama").to(torch.bfloat16), check=False)
    frozen = next(iter(model.hf.parameters()))
    frozen.requires_grad_(False)
    objects = {n: (id(p), p.requires_grad, p.dtype) for n, p in model.hf.named_parameters()}
    before, whole, digest = bits(model), save(dict(model.hf.state_dict())), model.weights_hash
    with model.edited({"L0.W_out": torch.randn(64, 32), "L2.W_Q": lambda w: w.double() * 1.1}):
        assert model.weights_hash != digest
        now = {n: (id(p), p.requires_grad, p.dtype) for n, p in model.hf.named_parameters()}
        assert now == objects
    assert same(model, before)
    assert save(dict(model.hf.state_dict())) == whole
    assert model.weights_hash == digest
    assert interp.load(model.hf, check=False).weights_hash == digest  # computed anew
    with model.edited({"L0.W_out": interp.Zero()}), torch.no_grad():
        model.hf.get_parameter("model.layers.1.mlp.up_proj.weight").add_(1)  # not named, not undone
    assert model.weights_hash == interp.load(model.hf, check=False).weights_hash != digest


def test_edits_under_inference_mode_are_noticed():
    model = make()
    digest = model.weights_hash
    with torch.inference_mode(), model.edited({"L0.W_out": interp.Zero()}):
        assert model.weights_hash != digest
    assert model.weights_hash == digest


def test_a_model_that_moves_meanwhile_is_put_back_where_it_is():
    model = make()
    before = {k: v.double() for k, v in bits(model).items()}
    with model.edited({"L0.W_out": interp.Zero()}):
        model.hf.double()
    assert same(model, before)


def test_gradients_pass_through_edited_weights():
    model, ids = make(), tiny.tokens()
    with model.edited({"L0.W_out": lambda w: 2 * w}):
        model.hf(ids).logits.sum().backward()
    weight = model.hf.get_parameter("model.layers.0.mlp.down_proj.weight")
    assert weight.grad is not None


@pytest.mark.parametrize("family", ["gpt2", "gemma"])
def test_tied_embeddings_are_refused_unless_both_are_named(family):
    model = interp.load(tiny.build(family, tie_word_embeddings=True), check=False)
    before = bits(model)
    table = dict(model.hf.named_parameters())
    name = next(n for n, p in table.items() if p is model.hf.get_input_embeddings().weight)
    for one, other in (("W_E", "W_U"), ("W_U", "W_E"), (name, "W_U"), ("lm_head.weight", "W_E"),
                       ("unembed.W_U", "W_E")):  # fmt: skip
        with pytest.raises(ModelError, match=f"'{one}' is tied to {other}"):
            model.edited({one: interp.Zero()}).__enter__()
    with model.edited({"W_E": lambda w: 2 * w, "W_U": lambda w: 2 * w}):
        assert torch.equal(model.W_E, 2 * before[name])
        assert torch.equal(model.W_U, 2 * before[name].T)
    with pytest.raises(ModelError, match="were given two different values"):
        model.edited({"W_E": lambda w: 2 * w, "W_U": interp.Zero()}).__enter__()
    assert same(model, before)


@pytest.mark.bad_input
def test_errors():
    model, bare = make(), make("phi")
    before = bits(model)
    for name, text in {
        "L0.W_oot": r"no weight is called 'L0.W_oot'; nearest: .*'L0.W_out'",
        "W_out": "have its layer before them",
        "L0.H1.W_out": "no weight is called",
        "L0.W_E": "no weight is called",
        "model.layers.0.mlp.down.weight": "nearest: 'model.layers.0.mlp.down_proj.weight'",
        "L0.b_out": "a bias that this family does not have",
        "W_pos": "has no W_pos",
        "embed.W_U": "no weight is called",
        "blocks.0.mlp.W_Q": "no weight is called",
        3: "no weight is called 3",
    }.items():
        with pytest.raises(ModelError, match=text):
            model.edited({name: interp.Zero()}).__enter__()
    with pytest.raises(SiteError, match="layer 7 is out of range"):
        model.edited({"L7.W_out": interp.Zero()}).__enter__()
    with pytest.raises(ModelError, match=r"gives \[2\], but the weight is \[64, 32\]"):
        model.edited({"L0.W_in": interp.Zero(), "L0.W_out": torch.ones(2)}).__enter__()
    with pytest.raises(ModelError, match="is a float; expected a tensor or a function"):
        model.edited({"L0.W_out": 2.0}).__enter__()
    with pytest.raises(ModelError, match="expected a dictionary from weight names"):
        model.edited([1]).__enter__()
    with pytest.raises(ModelError, match="has no W_gate"):
        bare.edited({"L0.W_gate": interp.Zero()}).__enter__()
    assert same(model, before)
    hf = tiny.build("opt", word_embed_proj_dim=20, tie_word_embeddings=False)
    projected = interp.load(hf, check=False)
    with pytest.raises(ModelError, match="product of two matrices"):
        projected.edited({"W_E": interp.Zero()}).__enter__()
