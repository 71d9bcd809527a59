"""What MLPs and their neurons say of two labels, by hand; updates of one value vector; their null."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import editing
from interp.editing.value_vectors import MlpLens, mlp_lens, random_update, value_update
from interp.errors import ModelError, PromptError
from interp.results import Provenance

TEXTS = ["The capital of France is", "The capital of Peru is", "The capital of Japan is"]


def asked(model):
    return model.prompts(TEXTS, answers=[" Paris", " Lima", " Paris"])


def read(model, prompts, vectors):
    """The model's own logits with ``vectors`` in place of the last stream."""
    edit = {f"L{model.n_layers - 1}.resid_post@END": interp.Replace(vectors)}
    return model.run(prompts, edit=edit, logits="last").logits[:, 0]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "granite"])
def test_the_lens_is_the_unembedding_of_what_each_mlp_writes(family, tiny_model):
    model = tiny_model(family)
    prompts = asked(model)
    lens = mlp_lens(model, prompts, " Tokyo", top=5)
    a, right = model.to_single_token(" Tokyo"), prompts.answers[:, 0]
    cache = model.run(prompts, save=["L*.mlp_out@END", "L*.mlp_post@END"]).cache
    for layer in range(model.n_layers):
        logits = read(model, prompts, cache[f"L{layer}.mlp_out@END"])
        want = logits[:, a] - logits.gather(1, right[:, None])[:, 0]
        assert torch.allclose(lens.per_prompt[layer], want, atol=1e-5)
        m, weight = cache[f"L{layer}.mlp_post@END"], model.weights.layer(layer)
        loud = (m.abs() * weight.W_out.norm(dim=-1)).mean(0)
        assert lens.neurons[layer].tolist() == loud.argsort(descending=True)[:5].tolist()
        assert torch.allclose(lens.loudness[layer], loud[lens.neurons[layer]], rtol=1e-5)
        for place, neuron in enumerate(lens.neurons[layer].tolist()):
            alone = read(model, prompts, m[:, neuron, None] * weight.W_out[neuron] + weight.b_out)
            gap = (alone[:, a] - alone.gather(1, right[:, None])[:, 0]).mean()
            assert float(lens.gaps[layer, place]) == pytest.approx(float(gap), abs=1e-5)
            assert float(lens.activations[layer, place]) == pytest.approx(
                float(m[:, neuron].mean()), abs=1e-6
            )


def test_a_neuron_that_was_made_to_speak_for_the_anchor_is_the_first(tiny_model):
    model = tiny_model("gpt2")
    a, b = (model.to_single_token(word) for word in (" Tokyo", " Lima"))
    prompts = model.prompts(TEXTS[:2], answers=[" Lima", " Lima"])
    m = model.run(prompts, save="L1.mlp_post@END").cache["L1.mlp_post@END"].mean(0)
    neuron = int(m.abs().argmax())
    told = (model.weights.W_U[:, a] - model.weights.W_U[:, b]) * m[neuron].sign() * 1e4
    unit = torch.zeros(len(m)).index_fill_(0, torch.tensor([neuron]), 1.0)
    before = mlp_lens(model, prompts, " Tokyo")
    with model.edited({"L1.W_out": editing.RankOne(unit, told)}):
        lens = mlp_lens(model, prompts, " Tokyo")
    best = float(lens.gaps[1].max())
    assert lens.first(1, gap=0.9 * best) == neuron
    assert lens.first(1, gap=best) is None
    assert int(lens.per_prompt.mean(-1).argmax()) == 1
    assert lens.per_prompt[1].mean() > before.per_prompt[1].mean() + 0.5
    frame = lens.to_frame()
    assert len(frame) == lens.neurons.numel()
    assert set(frame[frame.gap == frame.gap.max()].neuron) == {neuron}


def test_first_is_the_loudest_that_passes_and_not_the_one_with_the_largest_gap():
    lens = MlpLens(
        "A", torch.zeros(1, 2), torch.tensor([[7, 3, 5]]), torch.tensor([[9.0, 8.0, 1.0]]),
        torch.ones(1, 3), torch.tensor([[1.0, 4.5, 6.0]]), Provenance({}, "a model", "0" * 64, None, None, {}),
    )  # fmt: skip
    assert (lens.first(0), lens.first(0, gap=5.0), lens.first(0, gap=6.0)) == (3, 5, None)


def test_the_lens_saves_loads_and_draws(tiny_model, tmp_path):
    model = tiny_model("llama")
    lens = mlp_lens(model, asked(model), " Tokyo", top=3)
    again = MlpLens.load(lens.save(tmp_path / "lens"))
    assert torch.equal(again.gaps, lens.gaps)
    assert repr(again).startswith("MlpLens(' Tokyo' against the right label, in logits: L0 ")
    axes = again.plot().axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert len(names) == 2 * model.n_layers
    widths = [bar.get_width() for bar in axes.patches]
    assert widths[0] == pytest.approx(float(lens.per_prompt[0].mean()), abs=1e-6)
    assert widths[1] == pytest.approx(float(lens.gaps[0].max()), abs=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_update_moves_one_value_vector_by_the_two_columns_and_is_put_back(family, tiny_model):
    model = tiny_model(family)
    a, b = (model.to_single_token(word) for word in (" Tokyo", " Lima"))
    edit = value_update(model, 1, 6, anchor=" Tokyo", right=" Lima")
    before = model.weights.layer(1).W_out.clone()
    with model.edited(edit):
        moved = model.weights.layer(1).W_out - before
    want = 8 * model.weights.W_U[:, b] - model.weights.W_U[:, a]
    assert torch.allclose(moved[6], want, atol=1e-5)
    assert float(moved.norm()) == pytest.approx(float(want.norm()), rel=1e-4)
    assert torch.equal(model.weights.layer(1).W_out, before)
    other = value_update(model, 1, 6, anchor=a, right=b, lower=0.5, higher=2.0)
    assert torch.allclose(
        other.changes["L1.W_out"].v, 2 * model.weights.W_U[:, b] - 0.5 * model.weights.W_U[:, a]
    )


def test_what_the_update_adds_to_a_stream_is_the_neuron_s_activation_times_it(tiny_model):
    model = tiny_model("gpt2")
    edit = value_update(model, 2, 6, anchor=" Tokyo", right=" Lima")
    run = model.run(TEXTS[0], save=["L2.mlp_out", "L2.mlp_post"])
    with model.edited(edit):
        after = model.run(TEXTS[0], save="L2.mlp_out").cache["L2.mlp_out"]
    m = run.cache["L2.mlp_post"][..., 6, None]
    assert torch.allclose(
        after - run.cache["L2.mlp_out"], m * edit.changes["L2.W_out"].v, atol=1e-6
    )


def test_the_null_is_of_the_same_neuron_and_norm_and_of_another_direction(tiny_model):
    model = tiny_model("gpt2")
    edit = value_update(model, 1, 6, anchor=" Tokyo", right=" Lima")
    one, null = edit.changes["L1.W_out"], random_update(edit, seed=3).changes["L1.W_out"]
    assert torch.equal(one.u, null.u)
    assert null.norm == pytest.approx(one.norm, rel=1e-5)
    assert abs(float(torch.cosine_similarity(one.v, null.v, dim=0))) < 0.5
    assert torch.equal(random_update(edit, seed=3).changes["L1.W_out"].v, null.v)
    assert not torch.equal(random_update(edit, seed=4).changes["L1.W_out"].v, null.v)
    tuned = editing.finetune(model, TEXTS[0], " Lima", layer=1)
    with pytest.raises(ModelError, match="no RankOne: give an edit of value_update"):
        random_update(tuned, seed=0)


def test_neurons_and_prompts_that_do_not_fit_are_refused(tiny_model):
    model = tiny_model("gpt2")
    for layer, neuron in ((9, 0), (0, 10_000), (0, -1)):
        with pytest.raises(ModelError, match=rf"L{layer}.N{neuron}: .* no such neuron"):
            value_update(model, layer, neuron, anchor=" Tokyo", right=" Lima")
    with pytest.raises(PromptError, match="none of which is the anchor ' Lima'"):
        mlp_lens(model, asked(model), " Lima")
    with pytest.raises(PromptError, match="expected prompts with answers"):
        mlp_lens(model, model.prompts(TEXTS), " Tokyo")
    with pytest.raises(ModelError, match="top=0: expected at least one"):
        mlp_lens(model, asked(model), " Tokyo", top=0)
