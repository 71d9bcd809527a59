"""Composition scores: TransformerLens's numbers, an exact baseline, and a planted pair."""

import pytest
import torch

import interp
from interp.errors import MetricError, ModelError, ResultError
from interp.weight_lenses import CompositionResult, composition
from interp.weight_lenses.heads import heads_of
from interp.weight_lenses.rotary import relative_rotation
from tests import tiny
from tests.weight_lenses.peer import hooked


def load(family, **changes):
    hf = tiny.build(family, **changes) if changes else tiny.shared(family)
    return interp.load(hf, check=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_transformer_lens_has_the_same_scores(kind):
    theirs = hooked().all_composition_scores(kind.upper())
    ours = composition(load("gpt2"), kind, controls=1)
    assert torch.allclose(ours.values.nan_to_num(0), theirs, atol=1e-6)
    assert int(ours.values.isnan().sum()) == 6 * 16  # not a later layer


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3", "gptj", "olmo2"])
@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_scores_are_norms_of_whole_products(family, kind):
    model = load(family)
    values = composition(model, kind, offset=2, controls=0).values
    first, later = heads_of(model, 0), heads_of(model, 2)
    turn = relative_rotation(model.anatomy, 2, 2)
    for a, b in ((0, 3), (3, 1)):
        ov = first.v[a] @ first.o[a]
        qk = later.q[b] @ turn @ later.k[b].T
        reader = {"q": qk, "k": qk.T, "v": later.v[b] @ later.o[b]}[kind]
        expected = (ov @ reader).norm() / (ov.norm() * reader.norm())
        assert float(values[0, a, 2, b]) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])  # with and without the mean taken out
def test_the_baseline_is_the_mean_square_over_random_turns(family):
    from interp.weight_lenses.composition import _turn

    model, generator = load(family), torch.Generator().manual_seed(0)
    first, later = heads_of(model, 0), heads_of(model, 1)
    ov, qk = first.v[0] @ first.o[0], later.k[1] @ later.q[1].T
    squares = []
    for _ in range(300):
        turn = _turn(model, True, generator)
        squares.append(((ov @ turn @ qk).norm() / (ov.norm() * qk.norm())) ** 2)
    found = torch.stack(squares)
    baseline = composition(model, "k", controls=0).baseline
    assert baseline == (tiny.D_MODEL - (family == "gpt2")) ** -0.5
    error = float(found.std() / 300**0.5)
    assert float(found.mean()) == pytest.approx(baseline**2, abs=4 * error)
    assert error < 0.03 * baseline**2
    assert torch.allclose(turn @ turn.T @ ov.T, ov.T, atol=1e-5)  # keeps what can be written


def test_a_planted_pair_stands_out_of_every_random_one():
    hf = tiny.build("llama", num_key_value_heads=4)
    writer, reader = (hf.model.layers[i].self_attn for i in (0, 2))
    with torch.no_grad():
        hf.model.layers[2].input_layernorm.weight.fill_(1.0)
        reader.k_proj.weight[8:16] = writer.o_proj.weight[:, 24:32].T  # head 1 reads head 3
    model = interp.load(hf, check=False)
    result = composition(model, "k")
    best = result.top(2)
    assert (best.writer[0], best.reader[0]) == ("L0.H3", "L2.H1")
    assert best.score[0] > 2 * result.baseline
    assert best.score[0] > result.null.max() > best.score[1] * 0.8
    assert result.top(1, reader="L2.H1").writer[0] == "L0.H3"
    assert composition(model, "q").top(1).score[0] < best.score[0]


def test_same_seed_same_bytes_and_files(tmp_path):
    model = load("gpt_neox")
    result = composition(model, "q", controls=2, seed=3)
    assert torch.equal(result.null, composition(model, "q", controls=2, seed=3).null)
    assert not torch.equal(result.null, composition(model, "q", controls=2, seed=4).null)
    again = CompositionResult.load(result.save(tmp_path / "composition.safetensors"))
    assert torch.equal(again.values.nan_to_num(9), result.values.nan_to_num(9))
    assert (again.kind, again.baseline, again.offset) == ("q", result.baseline, 0)
    frame = result.to_frame()
    assert len(frame) == 3 * 16
    assert frame["excess"][0] == pytest.approx(frame["score"][0] - result.baseline)
    axes = result.plot().axes[0]
    assert axes.images[0].get_array().shape == (8, 8)
    low, high = axes.images[0].get_clim()
    assert low == -high
    assert "Q-composition" in axes.get_title()


@pytest.mark.bad_input
def test_errors():
    with pytest.raises(MetricError, match="kind 'o'; expected 'q', 'k' or 'v'"):
        composition(load("gpt2"), "o")
    with pytest.raises(ModelError, match="offset=1: this gpt2 model has no rotary positions"):
        composition(load("gpt2"), "k", offset=1)
    with pytest.raises(MetricError, match="controls=-1; expected 0 or more"):
        composition(load("gpt2"), "k", controls=-1)
    alone = composition(load("gpt2", n_layer=1), "k")
    assert alone.to_frame().empty
    with pytest.raises(ResultError, match="one layer has no pairs"):
        alone.plot()
