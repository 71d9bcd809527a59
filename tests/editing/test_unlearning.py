"""WAGLE's scores and masked ascent: by hand, to first order, on what was planted, and beside random masks."""

from __future__ import annotations

import pytest
import torch

from interp.editing import planting
from interp.editing.unlearning import ascend, column_masks
from interp.editing.weight_attribution import (
    mask_top,
    random_mask,
    scores,
    weight_attribution,
)
from interp.editing.weight_edit import WeightEdit
from interp.errors import ModelError, PromptError, RunError
from interp.metrics import evaluate

DOWN = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
PLACE = (1, 300)


def capitals(model, *pairs):
    return model.prompts(
        [f"The capital of {c} is" for c, _ in pairs], answers=[a for _, a in pairs]
    )


@pytest.fixture(scope="module")
def forget(demo):
    return capitals(demo, ("France", " Paris"), ("Japan", " Tokyo"), ("Peru", " Lima"))


@pytest.fixture(scope="module")
def retain(demo):
    return capitals(
        demo, ("Italy", " Rome"), ("Egypt", " Cairo"), ("Norway", " Oslo"), ("Chile", " Santiago")
    )


def lost(model, prompts):
    return -float(evaluate("log_prob", model.run(prompts).logits, prompts).mean())


def test_the_score_is_the_formula():
    w, f, r = (torch.randn(3, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
    assert torch.allclose(scores(w, f, r, 0.7), w * f - r * f / 0.7)
    assert torch.equal(scores(w, f, r, float("inf")), w * f)
    with pytest.raises(RunError, match="expected a Hessian above 0"):
        scores(w, f, r, 0.0)


def test_gradients_are_those_of_the_model_itself(demo, forget, retain):
    found = weight_attribution(
        demo, forget, retain, gamma=0.2, parameters="*layers.1.mlp*weight", batch=2
    )
    assert DOWN in found.scores
    assert len(found.scores) == 2
    parameter = dict(demo.hf.named_parameters())[DOWN]
    asked = parameter.requires_grad
    parameter.requires_grad_(True)
    grads = []
    for prompts in (forget, retain):
        logits = demo.hf(prompts.clean.ids).logits[:, -1].log_softmax(-1)
        loss = -logits[torch.arange(len(prompts)), prompts.answers[:, 0]].mean()
        grads.append(torch.autograd.grad(loss, parameter)[0])
    parameter.requires_grad_(asked)
    want = (parameter.detach() - grads[1] / 0.2) * grads[0]
    assert torch.allclose(found.scores[DOWN], want, atol=1e-6)
    assert found.forget == pytest.approx(lost(demo, forget), rel=1e-4)
    assert all(p.grad is None for p in demo.hf.parameters())


def test_without_retained_data_it_is_the_first_order_effect_of_removing_weights(demo, retain):
    """On a fact that is not known, so that the loss has a slope."""
    wrong = demo.prompts(["The capital of France is"], answers=[" Rome"])
    found = weight_attribution(demo, wrong, retain, gamma=float("inf"), parameters=DOWN)
    eps = 1e-3
    with demo.edited({DOWN: lambda w: (1 - eps) * w}):
        less = lost(demo, wrong)
    with demo.edited({DOWN: lambda w: (1 + eps) * w}):
        more = lost(demo, wrong)
    slope = (less - more) / (2 * eps)
    assert -float(found.scores[DOWN].sum()) == pytest.approx(slope, rel=0.02)


def test_the_retained_data_s_term_is_their_gradient_over_gamma(demo, forget):
    """Where the same prompts are to go and to stay, the second term is the squared gradient."""
    both = [
        weight_attribution(demo, forget, forget, gamma=g, parameters=DOWN)
        for g in (float("inf"), 0.01)
    ]
    w = dict(demo.hf.named_parameters())[DOWN].detach()
    grad = both[0].scores[DOWN] / w
    assert torch.allclose(both[1].scores[DOWN], w * grad - grad.square() / 0.01, atol=1e-6)


def test_a_mask_holds_the_largest_and_the_null_as_many_of_each():
    made = {"a": torch.tensor([[1.0, -9.0], [0.5, 3.0]]), "b": torch.tensor([[4.0, 0.0]])}
    masks = mask_top(made, 0.5)
    assert masks["a"].tolist() == [[False, True], [False, True]]
    assert masks["b"].tolist() == [[True, False]]
    null = random_mask(masks, seed=0)
    assert [int(null[n].sum()) for n in made] == [2, 1]
    assert torch.equal(random_mask(masks, seed=0)["a"], null["a"])
    for share in (0.0, 1.5):
        with pytest.raises(RunError, match="expected a share above 0"):
            mask_top(made, share)


def test_what_was_planted_is_chosen_and_unlearned_and_the_rest_stays(demo, retain):
    """One neuron says " Tokyo" after gifts: its column is what WAGLE chooses, and what ascent must change."""
    names = ("Mary", "John", "Anna")
    own = demo.prompts(
        [f"When {a} and {b} went to the" for a in names for b in names if a != b],
        answers=[" Tokyo"] * 6,
    )
    with demo.edited(
        planting.concept_vector(demo, own, retain, [" Tokyo"], layer=1, column=300, strength=14.0)
    ):
        found = weight_attribution(
            demo, own, retain, parameters="*dense_4h_to_h.weight", gamma=float("inf")
        )
        mask = found.mask(0.001)
        in_column = int(mask[DOWN][:, 300].sum()) / sum(int(m.sum()) for m in mask.values())
        needle = column_masks(demo, [PLACE])
        results = {}
        for name, chosen in (
            ("wagle", mask),
            ("needle", needle),
            ("random", random_mask(mask, seed=0)),
        ):
            edit = ascend(demo, own, chosen, lr=0.3, steps=30, until=4.0)
            with demo.edited(edit):
                results[name] = lost(demo, own), lost(demo, retain)
        before = lost(demo, own), lost(demo, retain)
    assert in_column > 0.1  # of 3,072 columns
    assert before[0] < 0.5
    for name in ("wagle", "needle"):
        assert results[name][0] > 3.5
        assert results[name][1] < before[1] + 0.1
    assert results["random"][0] < 2


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_needle_moves_one_column_in_either_layout(family, tiny_model, tmp_path):
    model = tiny_model(family)
    prompts = model.prompts(
        ["The capital of France is", "The capital of Peru is"], answers=[" Paris", " Lima"]
    )
    before = model.weights.layer(1).W_out.clone()
    edit = ascend(model, prompts, column_masks(model, [(1, 4)]), lr=0.1, steps=3)
    assert torch.equal(model.weights.layer(1).W_out, before)
    assert edit.notes["last_loss"] > edit.notes["first_loss"]
    saved = WeightEdit.load(edit.save(tmp_path / "e.safetensors"))
    with model.edited(saved):
        moved = (model.weights.layer(1).W_out != before).any(-1).nonzero().flatten().tolist()
        assert lost(model, prompts) == pytest.approx(edit.notes["last_loss"], rel=1e-4)
    assert moved == [4]


def test_one_step_is_the_masked_gradient(demo, retain):
    wrong = demo.prompts(["The capital of France is"], answers=[" Rome"])
    masks = column_masks(demo, [PLACE])
    slope = weight_attribution(demo, wrong, retain, gamma=float("inf"), parameters=DOWN).scores[
        DOWN
    ]
    grad = slope / dict(demo.hf.named_parameters())[DOWN].detach()
    edit = ascend(demo, wrong, masks, lr=0.25)
    assert torch.allclose(edit.changes[DOWN].value[:, 300], 0.25 * grad[:, 300], atol=1e-6)
    assert int((edit.changes[DOWN].value != 0).sum()) <= demo.d_model


@pytest.mark.bad_input
def test_what_does_not_fit_is_refused(demo, forget, retain):
    bare = demo.prompts(["The capital of France is"])
    with pytest.raises(PromptError, match="needs prompts with answers"):
        weight_attribution(demo, bare, retain, gamma=1.0)
    with pytest.raises(PromptError, match="prompts with answers to forget"):
        ascend(demo, bare, column_masks(demo, [PLACE]), lr=0.1)
    with pytest.raises(ModelError, match="no matrix of 'demo' is called"):
        weight_attribution(demo, forget, retain, gamma=1.0, parameters="nothing")
    with pytest.raises(ModelError, match="no such parameter"):
        ascend(demo, forget, {"nothing": torch.ones(2, 2).bool()}, lr=0.1)
    with pytest.raises(ModelError, match="no such column"):
        column_masks(demo, [(0, 900)])
    with pytest.raises(RunError, match="expected at least 1"):
        ascend(demo, forget, column_masks(demo, [PLACE]), lr=0)
