"""Super weights: planted coordinates come back exactly, none where none was planted."""

from __future__ import annotations

import pytest
import torch

from interp.editing import planting
from interp.editing.super_weights import (
    SuperWeights,
    largest_weights,
    super_weights,
    zeroed,
)
from interp.errors import ModelError, SiteError

TEXT = "The capital of France is Paris"


@pytest.mark.parametrize(("layer", "row", "column"), [(0, 7, 33), (1, 150, 700), (2, 191, 0)])
def test_planted_coordinates_come_back_exactly(demo, layer, row, column):
    planted = planting.super_weight(demo, TEXT, layer=layer, row=row, column=column)
    with demo.edited(planted):
        found = super_weights(demo, TEXT)
    assert found.found == ((layer, row, column),)
    assert float(found.inputs[0, layer]) == pytest.approx(200, rel=1e-2)
    assert float(found.weights[0, layer]) == 1.0
    assert float(found.shares[0, layer]) > 0.9
    assert len(found.inputs) == 2  # a second look finds nothing more
    assert found.to_frame()["super"].sum() >= 1


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_planted_coordinates_come_back_in_every_layout(family, tiny_model):
    model = tiny_model(family)
    with model.edited(planting.super_weight(model, TEXT, layer=1, row=20, column=41)):
        assert super_weights(model, TEXT).found == ((1, 20, 41),)


def test_several_of_one_neuron_and_of_two_layers_are_found(demo):
    one = planting.super_weight(demo, TEXT, layer=0, row=20, column=41)

    def another(w):
        w[41, 21] = -0.5
        return w

    with demo.edited(one), demo.edited({"L0.W_out": another}):
        later = planting.super_weight(demo, TEXT, layer=2, row=3, column=9, spike=90.0)
        with demo.edited(later):
            found = super_weights(demo, TEXT)
            assert found.found == ((0, 20, 41), (2, 3, 9), (0, 21, 41))
            with found.without(demo) as without:
                assert super_weights(without, TEXT).found == ()


def test_none_is_reported_where_none_was_planted(demo, tiny_model):
    for model in (demo, demo.random_twin(check=False), tiny_model("llama"), tiny_model("gpt2")):
        found = super_weights(model, TEXT)
        assert found.found == ()
        assert repr(found).startswith("SuperWeights(none; ")
        with pytest.raises(ModelError, match="none to set to 0"):
            found.without(model)


def test_spikes_that_have_nothing_to_do_with_each_other_are_no_super_weight(demo):
    edits = planting.super_weight(demo, TEXT, layer=1, row=20, column=41)

    def elsewhere(w):
        w[41] = 0
        return w

    def bias(b):
        b[77] = 300.0
        return b

    with demo.edited({**edits, "L1.W_out": elsewhere, "L1.b_out": bias}):
        found = super_weights(demo, TEXT)
        assert int(found.columns[0, 1]) == 41
        assert int(found.rows[0, 1]) == 77
        assert found.found == ()


def test_without_it_the_planted_channel_is_quiet_and_the_model_is_put_back(demo, tmp_path):
    before = demo.weights_hash
    with demo.edited(planting.super_weight(demo, TEXT, layer=1, row=20, column=41)):
        found = super_weights(demo, TEXT)
        with found.without(demo) as without:
            quiet = without.run(TEXT, save="L1.mlp_out").cache["L1.mlp_out"]
            assert float(without.weights.layer(1).W_out[41, 20]) == 0
        loud = demo.run(TEXT, save="L1.mlp_out").cache["L1.mlp_out"]
    assert float(loud[..., 20].abs().max()) > 150
    assert float(quiet[..., 20].abs().max()) < 20
    assert demo.weights_hash == before
    with pytest.raises(ModelError, match="has other weights"):
        found.without(demo)
    again = SuperWeights.load(found.save(tmp_path / "w.safetensors"))
    assert again.found == found.found
    assert torch.equal(again.shares, found.shares)
    assert len(found.plot().axes[0].lines) >= 3


def test_the_largest_weights_are_largest_and_leave_out_what_they_should(demo):
    w = demo.weights.W_out.as_subclass(torch.Tensor)
    places = largest_weights(demo, 5)
    sizes = [abs(float(w[layer, column, row])) for layer, row, column in places]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == float(w.abs().max())
    assert largest_weights(demo, 4, without=places[:1]) == places[1:]
    with demo.edited(zeroed(places)) as edited:
        assert all(float(edited.weights.layer(i).W_out[c, r]) == 0 for i, r, c in places)
        assert float((edited.weights.W_out != w).sum()) == 5


def test_what_does_not_fit_is_refused(demo, tiny_model):
    with pytest.raises(ModelError, match="expected a threshold above 0"):
        super_weights(demo, TEXT, threshold=0.0)
    with (
        pytest.raises(ModelError, match="with 192 rows and 768 columns"),
        demo.edited(zeroed([(0, 500, 3)])),
    ):
        pass
    with pytest.raises(ModelError, match="expected a layer below 4"):
        planting.super_weight(demo, TEXT, layer=4, row=0, column=0)
    with pytest.raises(ModelError, match="expected 1 or more"):
        largest_weights(demo, 0)
    with pytest.raises(SiteError, match="mixture of experts"):
        super_weights(tiny_model("mixtral"), TEXT)
