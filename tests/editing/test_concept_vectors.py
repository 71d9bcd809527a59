"""Concept vectors: planted ones are read, matter to their own prompts only, and change as they are changed."""

from __future__ import annotations

import pytest
import torch

from interp import weight_lenses
from interp.editing import planting
from interp.editing.concept_vectors import (
    NoiseEffect,
    VectorChange,
    jaccard,
    noise_effect,
    vector_change,
)
from interp.errors import MetricError, ModelError, PromptError

PLACE = (1, 300)
WORDS = (" Tokyo",)


@pytest.fixture(scope="module")
def own(demo):
    names = ("Mary", "John", "Anna", "Sam")
    return demo.prompts(
        [f"When {a} and {b} went to the" for a in names for b in names if a != b],
        answers=[" Tokyo"] * 12,
    )


@pytest.fixture(scope="module")
def other(demo):
    pairs = (("France", " Paris"), ("Japan", " Tokyo"), ("Peru", " Lima"), ("Italy", " Rome"))
    return demo.prompts([f"The capital of {c} is" for c, _ in pairs], answers=[a for _, a in pairs])


@pytest.fixture(scope="module")
def planted(demo, own, other):
    return planting.concept_vector(demo, own, other, WORDS, layer=PLACE[0], column=PLACE[1])


def test_jaccard_by_hand():
    a = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]])
    assert jaccard(a, torch.tensor([[4, 3, 2, 1], [5, 6, 7, 8]])).tolist() == [1.0, 0.0]
    assert jaccard(a[0], torch.tensor([3, 4, 5, 6])).item() == pytest.approx(2 / 6)
    with pytest.raises(MetricError, match="an id twice"):
        jaccard(torch.tensor([1, 1]), torch.tensor([1, 2]))


@pytest.mark.bad_input
def test_sets_of_two_sizes_are_refused():
    with pytest.raises(MetricError, match="as many in both"):
        jaccard(torch.tensor([1, 2]), torch.tensor([1, 2, 3]))


def test_a_planted_vector_says_its_words_and_is_heard_by_its_own_prompts(demo, own, other, planted):
    before = demo.weights_hash
    with demo.edited(planted):
        said = weight_lenses.decode(demo, f"L{PLACE[0]}.mlp_post.N{PLACE[1]}", top=1)
        site = f"L{PLACE[0]}.mlp_post.N{PLACE[1]}@-1"
        fires = [demo.run(p, save=site).cache[site].flatten() for p in (own, other)]
        top = demo.run(own, logits="last").logits[:, 0].argmax(-1)
    assert {demo.to_single_token(w) for w in WORDS} == set(said.top_ids[0].tolist())
    assert float(fires[0].min()) > 15
    assert float(fires[1].abs().max()) < 1
    assert set(top.tolist()) <= {demo.to_single_token(w) for w in WORDS}
    assert demo.weights_hash == before


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_it_can_be_planted_in_every_layout(family, tiny_model):
    model = tiny_model(family)
    own = model.prompts(["When Mary and John went to the", "When John and Mary went to the"])
    other = model.prompts(["The capital of France is", "The capital of Peru is"])
    edits = planting.concept_vector(model, own, other, [" Tokyo"], layer=0, column=3)
    with model.edited(edits):
        fires = [
            float(model.run(p, save="L0.mlp_post.N3@-1").cache["L0.mlp_post.N3@-1"].mean())
            for p in (own, other)
        ]
        said = weight_lenses.decode(model, "L0.mlp_post.N3", top=1)
    assert fires[0] > 15
    assert abs(fires[1]) < 3
    assert said.top_ids.item() == model.to_single_token(" Tokyo")


def test_noise_on_a_planted_vector_is_felt_by_its_own_prompts_only(demo, own, other, planted):
    with demo.edited(planted):
        found = noise_effect(demo, own, other, [PLACE], std=2.0, draws=6)
        again = noise_effect(demo, own, other, [PLACE], std=2.0, draws=6)
    assert torch.equal(found.own, again.own)
    assert found.own.shape == (6, 12)
    assert found.own.mean() > 1
    assert found.random.abs().max() < 0.1
    assert found.other.abs().max() < 0.1


def test_without_it_the_column_is_a_column_like_others(demo, own, other):
    found = noise_effect(demo, own, other, [PLACE], std=2.0, draws=6)
    assert abs(found.own.mean()) < 0.5


def test_noise_is_what_it_says(demo, own, other):
    """The mean loss of one draw, with the noise added by hand."""
    from interp.metrics import evaluate

    found = noise_effect(demo, own, other, [PLACE], std=0.5, draws=1, seed=4)
    noise = 0.5 * torch.randn(1, demo.d_model, generator=torch.Generator().manual_seed(4))

    def add(w):
        w[PLACE[1]] += noise[0]
        return w

    before = evaluate("log_prob", demo.run(own).logits, own)
    with demo.edited({f"L{PLACE[0]}.W_out": add}):
        after = evaluate("log_prob", demo.run(own).logits, own)
    assert torch.allclose(found.own[0], before - after, atol=1e-6)


def test_a_change_is_seen_in_direction_length_and_words(demo):
    def longer(w):
        w[300] *= 2
        return w

    generator = torch.Generator().manual_seed(0)
    fresh = torch.randn(demo.d_model, generator=generator)

    def replaced(w):
        w[7] = fresh
        return w

    old = demo.weights.layer(1).W_out[300].norm()
    found = vector_change(
        demo, {"L1.W_out": longer, "L2.W_out": replaced}, [(1, 300), (2, 7), (0, 5)]
    )
    assert found.cosine.tolist() == pytest.approx([1, found.cosine[1].item(), 1])
    assert abs(found.cosine[1]) < 0.3
    assert found.distance.tolist() == pytest.approx(
        [float(old), found.distance[1].item(), 0], abs=1e-5
    )
    assert found.jaccard[0] == 1
    assert found.jaccard[2] == 1
    assert found.jaccard[1] < 0.35  # 200 of 835: two random sets share about .14
    assert torch.equal(found.before[0], found.after[0])


def test_models_are_compared_and_a_twin_shares_nothing(demo, tmp_path):
    places = [(layer, n) for layer in range(4) for n in range(10)]
    twin = vector_change(demo, demo.random_twin(check=False), places)
    same = vector_change(demo, demo, places)
    assert (same.cosine - 1).abs().max() < 1e-6
    assert same.jaccard.min() == 1
    assert twin.cosine.abs().mean() < 0.1
    assert twin.jaccard.mean() == pytest.approx(0.136, abs=0.02)
    raw = weight_lenses.decode(demo, "L2.mlp_post.N4", top=200, folded=False)
    assert set(raw.top_ids[0].tolist()) == set(same.before[places.index((2, 4))].tolist())
    again = VectorChange.load(same.save(tmp_path / "v.safetensors"))
    assert again.places == same.places
    assert list(again.to_frame().columns) == ["layer", "column", "cosine", "distance", "jaccard"]


def test_effects_are_stored_and_what_does_not_fit_is_refused(
    demo, own, other, tmp_path, tiny_model
):
    found = noise_effect(demo, own, other, [PLACE, (1, 2)], draws=2)
    again = NoiseEffect.load(found.save(tmp_path / "n.safetensors"))
    assert again.places == found.places
    assert again.to_frame().shape == (2, 3)
    for place in ((9, 0), (0, 768), (-1, 0)):
        with pytest.raises(ModelError, match="no such column"):
            vector_change(demo, demo, [place])
    with pytest.raises(ModelError, match="no columns were given"):
        noise_effect(demo, own, other, [])
    with pytest.raises(MetricError, match="the vocabulary's size"):
        vector_change(demo, demo, [PLACE], top=10_000)
    with pytest.raises(MetricError, match="expected a std above 0"):
        noise_effect(demo, own, other, [PLACE], std=0.0)
    with pytest.raises(PromptError, match="prompts with answers on both sides"):
        noise_effect(demo, own, demo.prompts(["The capital of France is"]), [PLACE])
    with pytest.raises(ModelError, match="differ in shape"):
        vector_change(demo, tiny_model("gpt2"), [(0, 1)])
    with pytest.raises(PromptError, match="look alike"):
        planting.concept_vector(demo, own, own, WORDS, layer=1, column=2)
