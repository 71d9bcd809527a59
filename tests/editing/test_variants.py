"""The five variants: what each asks, and that ROME does it."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import editing
from interp.errors import PromptError


def test_what_each_variant_asks(demo, cases):
    case = cases[0]
    ask = {name: editing.objective(name, demo, case, noise=3.0, seed=4)
           for name in editing.VARIANTS if name != "tracing reversal"}  # fmt: skip
    assert ask["error injection"] == editing.Objective(case.target)
    assert ask["fact erasure"] == editing.Objective(case.answer, lower=True)
    assert ask["fact amplification"] == editing.Objective(case.answer)
    std = editing.subject_std(demo, [case])
    assert ask["fact forcing"] == editing.Objective(case.answer, noise=interp.Noise(3 * std, 4))
    embedding = demo.W_E[demo.to_single_token(f" {case.subject}")]
    assert std == pytest.approx(float(embedding.std()), rel=1e-5)


def test_tracing_reversal_asks_for_what_the_noised_model_says(demo, cases):
    case = cases[0]
    found = editing.objective("tracing reversal", demo, case, noise=10.0, seed=2)
    noise = interp.Noise(10.0 * editing.subject_std(demo, [case]), 2)
    prompts = demo.prompts([case.prompt] * 10, positions={"subject": [case.subject] * 10})
    noised = {"embed@subject": lambda x: x + noise(torch.zeros(10, 1, demo.d_model))[:, 0]}
    said = demo.run(prompts, edit=noised, logits="last").logits[:, 0].softmax(-1).mean(0)
    assert found.target == int(said.argmax())
    with pytest.raises(PromptError, match="with noise=0 the model still says"):
        editing.objective("tracing reversal", demo, case, noise=0.0)


@pytest.mark.bad_input
def test_errors(demo, cases):
    with pytest.raises(PromptError, match="no editing variant is called 'fact erasing'; nearest"):
        editing.objective("fact erasing", demo, cases[0])


@pytest.mark.parametrize("variant", ["fact erasure", "fact forcing"])
def test_rome_does_what_the_variant_asks(variant, demo, cases, keys, few):
    case = cases[1]
    goal = editing.objective(variant, demo, case)
    edit = editing.rome(demo, case.prompt, case.subject, goal, layer=0, covariance=keys, config=few)
    scores = editing.evaluate_edit(demo, edit, case, objective=goal)
    assert scores.rewrite > 0.65
    assert scores.neighbours_kept > 0.8
    if variant == "fact forcing":
        assert scores.target_before < 0.5 < 0.9 < scores.answer_before
        assert scores.target_after > 0.65
    else:
        assert scores.target_after < 0.1
        assert scores.erasure == pytest.approx(scores.rewrite)
