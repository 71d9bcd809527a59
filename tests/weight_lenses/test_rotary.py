"""Rotary positions as matrices: equal to what the model does to its queries and keys."""

import pytest
import torch

import interp
from interp.errors import MetricError, ModelError
from interp.weight_lenses import OffsetScores, qk_circuit, qk_offsets
from interp.weight_lenses.rotary import relative_rotation, turned
from tests import tiny

ROTARY = ("gpt_neox", "llama", "gemma2", "phi", "phi3", "smollm3", "stablelm", "gptj", "falcon")


@pytest.mark.parametrize("family", ROTARY)
def test_turned_queries_are_the_models(family):
    model, ids = interp.load(tiny.shared(family), check=False), tiny.tokens(1, 6)
    cache = model.run(ids, save=["L1.q", "L1.rot_q"]).cache
    for head in (0, 3):
        q, rotated = cache["L1.q"][0, :, head], cache["L1.rot_q"][0, :, head]
        places = turned(model.anatomy, 1, q, torch.arange(6))
        assert torch.allclose(places.diagonal().T, rotated, atol=1e-5)


@pytest.mark.parametrize("family", ROTARY)
def test_only_the_distance_counts(family):
    anatomy = interp.load(tiny.shared(family), check=False).anatomy
    eye = torch.eye(anatomy.d_head)
    at = turned(anatomy, 0, eye, torch.arange(9))
    assert torch.allclose(at[7] @ at[4].T, relative_rotation(anatomy, 0, 3), atol=1e-5)
    assert torch.allclose(at[4] @ at[7].T, relative_rotation(anatomy, 0, -3), atol=1e-5)
    assert torch.allclose(relative_rotation(anatomy, 0, 0), eye, atol=1e-6)
    assert (relative_rotation(anatomy, 0, 3) - eye).abs().max() > 0.1


def test_layers_without_rotary_positions_are_not_turned():
    anatomy = interp.load(tiny.shared("gpt2"), check=False).anatomy
    assert torch.equal(relative_rotation(anatomy, 0, 5), torch.eye(8))
    model = interp.load(tiny.build("smollm3", no_rope_layers=[1, 0, 1]), check=False)
    assert torch.equal(relative_rotation(model.anatomy, 1, 5), torch.eye(8))
    with pytest.raises(ModelError, match="layer 1 of this smollm3 model has no rotary"):
        qk_offsets(model, 1, 0)


def test_mean_and_spread_are_those_over_all_pairs(tmp_path):
    model = interp.load(tiny.shared("gpt_neox"), check=False)
    scores = qk_offsets(model, 1, 2, (0, 1, 5))
    for i, offset in enumerate((0, 1, 5)):
        dense = qk_circuit(model, 1, 2, offset).matrix.dense()
        assert float(scores.mean[i]) == pytest.approx(float(dense.mean()), abs=1e-5)
        assert float(scores.spread[i]) == pytest.approx(float(dense.std(correction=0)), abs=1e-4)
    assert scores.lead(5) == pytest.approx(float(scores.mean[2] - scores.mean[:2].max()))
    loaded = OffsetScores.load(scores.save(tmp_path / "offsets.safetensors"))
    assert torch.equal(loaded.mean, scores.mean)
    assert scores.to_frame()["offset"].tolist() == [0, 1, 5]
    assert "by distance" in scores.plot().axes[0].get_title()
    with pytest.raises(MetricError, match="no offsets were given"):
        qk_offsets(model, 1, 2, ())
    with pytest.raises(MetricError, match=r"lead\(2\) among the offsets"):
        scores.lead(2)


def test_gptjs_table_of_positions_ends():
    anatomy = interp.load(tiny.shared("gptj"), check=False).anatomy
    with pytest.raises(ModelError, match="in a model of 64 positions"):
        relative_rotation(anatomy, 0, 64)
