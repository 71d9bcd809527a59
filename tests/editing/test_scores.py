"""Scores: their arithmetic, what they read, and the cases that they are read on."""

from __future__ import annotations

import math

import pytest
import torch

import interp
from interp import editing
from interp.editing.scores import erasure_score, rewrite_score
from interp.errors import PromptError
from interp.prompts import facts


@pytest.mark.parametrize(
    ("before", "after", "score"),
    [
        (0.0, 1.0, 1.0),
        (0.5, 0.75, 0.5),
        (0.3, 0.3, 0.0),
        (0.5, 0.0, -1.0),
        (1.0, 1.0, 1.0),  # nothing was left: the floor keeps 0 / 0 away
        (1.0, 0.5, 1 - 0.5 / 2e-8),
    ],
)
def test_rewrite_score(before, after, score):
    found = rewrite_score(torch.tensor(before).double(), torch.tensor(after).double())
    assert float(found) == pytest.approx(score)


def test_erasure_score():
    before, after = torch.tensor([0.8, 0.5, 0.5, 0.0]), torch.tensor([0.2, 0.0, 0.9, 0.0])
    assert torch.allclose(erasure_score(before, after), torch.tensor([0.75, 1.0, 0.0, 0.0]))


def prob(model, prompt, *answers):
    logits = model.run(prompt, logits="last").logits[0, 0].softmax(-1)
    return [float(logits[model.to_single_token(answer)]) for answer in answers]


def test_what_an_edit_did_is_read_from_plain_runs(demo, cases):
    """Against each number computed by hand, for an edit that does something to all of them."""
    case = cases[0]
    change = {"L0.W_out": interp.Scale(0.9), "L1.W_out": interp.Scale(0.7)}
    scores = editing.evaluate_edit(demo, change, case)
    (t0, a0), p0 = prob(demo, case.prompt, case.target, case.answer), [
        prob(demo, text, case.target)[0] for text in case.paraphrases]  # fmt: skip
    essence = f"{case.subject} is a"
    before = demo.run(essence, logits="last").logits[0, 0].log_softmax(-1)
    right = [prob(demo, text, answer)[0] for text, answer in case.neighbours]
    with demo.edited(change):
        (t1, a1), p1 = prob(demo, case.prompt, case.target, case.answer), [
            prob(demo, text, case.target)[0] for text in case.paraphrases]  # fmt: skip
        after = demo.run(essence, logits="last").logits[0, 0].log_softmax(-1)
        still = [demo.run(text, logits="last").logits[0, 0].argmax() == demo.to_single_token(answer)
                 for text, answer in case.neighbours]  # fmt: skip
    assert min(right) > 0.5
    assert (scores.target_before, scores.target_after) == pytest.approx((t0, t1), rel=1e-3)
    assert (scores.answer_before, scores.answer_after) == pytest.approx((a0, a1), rel=1e-3)
    assert scores.rewrite == pytest.approx(1 - (1 - t1) / (1 - t0), abs=1e-6)
    assert scores.erasure == pytest.approx(max(0, (a0 - a1) / a0), abs=1e-4)
    each = [1 - (1 - y) / (1 - x) for x, y in zip(p0, p1, strict=True)]
    assert scores.paraphrase == pytest.approx(sum(each) / len(each), abs=1e-6)
    assert scores.neighbours_kept == pytest.approx(sum(map(int, still)) / len(still))
    drift = float((before.exp() * (before - after)).sum())
    assert scores.essence_drift == pytest.approx(drift, rel=1e-2, abs=1e-5)
    assert drift > 1e-3


def test_no_edit_scores_nothing(demo, cases):
    scores = editing.evaluate_edit(demo, {}, cases[0])
    assert (scores.rewrite, scores.paraphrase, scores.erasure, scores.essence_drift) == (0, 0, 0, 0)
    assert scores.neighbours_kept == 1


def test_neighbours_that_were_wrong_before_do_not_count(demo, cases):
    case = cases[0]
    asked = [text for text, _ in case.neighbours]
    wrong = tuple((text, " Lima") for text in asked[:2] if "Peru" not in text)
    lost = editing.EditCase(case.prompt, case.subject, case.target, case.answer, (), wrong)
    scores = editing.evaluate_edit(demo, {}, lost, essence=None)
    assert math.isnan(scores.neighbours_kept)
    assert math.isnan(scores.paraphrase)
    assert math.isnan(scores.essence_drift)


def test_targets_of_several_tokens(tiny_model):
    model = tiny_model("llama")
    case = editing.EditCase("The capital of France is", "France", " Paris and Lima", " Tokyo")
    scores = editing.evaluate_edit(model, {"W_U": interp.Scale(3.0)}, case, essence=None)
    whole, start = model.to_tokens(case.prompt + case.target)[0], 7
    start = model.to_tokens(case.prompt).shape[1]
    log_probs = model.run(whole).logits[0].log_softmax(-1)
    want = sum(float(log_probs[start - 1 + i, one]) for i, one in enumerate(whole[start:]))
    assert scores.target_before == pytest.approx(math.exp(want), rel=1e-4)


def test_capital_cases(demo, cases):
    table = {row["country"]: row["capital"] for row in facts.countries()}
    assert len({case.subject for case in cases}) == 4
    for case in cases:
        assert case.answer == f" {table[case.subject]}"
        assert case.target.strip() in table.values()
        assert prob(demo, case.prompt, case.answer)[0] > 0.5
        assert len(case.paraphrases) == 7
        assert case.prompt not in case.paraphrases
        assert len(case.neighbours) == 8
        assert not any(case.subject in text for text, _ in case.neighbours)
        for text, answer in case.neighbours:
            assert any(name in text and f" {city}" == answer for name, city in table.items())
    assert editing.capital_cases(demo, 4, seed=1) == cases
    assert editing.capital_cases(demo, 4, seed=2) != cases
    assert editing.capital_cases(demo, 2, seed=1, template=3)[0].prompt.startswith(
        "The capital city"
    )


def test_an_untrained_model_has_no_facts_to_edit(demo):
    twin = demo.random_twin(check=False)
    with pytest.raises(PromptError, match=r"knows \d of \d+ capitals"):
        editing.capital_cases(twin, 20)


@pytest.mark.bad_input
def test_errors(demo, cases):
    with pytest.raises(PromptError, match="as target and as answer"):
        editing.EditCase("France is", "France", " Paris", " Paris")
    with pytest.raises(PromptError, match="template=8: expected 0 to 7"):
        editing.capital_cases(demo, 2, template=8)
    with pytest.raises(PromptError, match="n=500 with 8 neighbours"):
        editing.capital_cases(demo, 500)
