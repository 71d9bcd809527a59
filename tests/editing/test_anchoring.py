"""A habit of one label: counted by what is right, taken off by a constant, trained in."""

from __future__ import annotations

import math

import pytest
import torch

import interp
from interp.editing.anchoring import Choices, anchored, choices
from interp.errors import PromptError
from interp.results import Provenance


def given(margins, right, labels=("A", "B")):
    """Choices between two labels by the margin of the first; ``right`` names the right ones."""
    logits = torch.tensor([[m, 0.0] for m in margins])
    places = torch.tensor([labels.index(one) for one in right])
    return Choices(
        tuple(labels), logits, places, Provenance({}, "a model", "0" * 64, None, None, {})
    )


def test_accuracy_and_share_by_hand():
    q = given([3.0, 1.0, 2.0, -1.0], "ABBB")
    assert q.chosen.tolist() == [0, 0, 0, 1]
    assert (q.share("A"), q.share("B")) == (0.75, 0.25)
    assert q.accuracy() == 0.5
    assert q.accuracy("A") == 1.0
    assert q.accuracy("B") == q.accuracy(other_than="A") == pytest.approx(1 / 3)
    frame = q.to_frame().set_index("right")
    assert frame.prompts.tolist() == [1, 3]
    assert frame["chose A"].tolist() == pytest.approx([1, 2 / 3])
    assert frame.accuracy.tolist() == pytest.approx([1, 1 / 3])


def test_a_constant_moves_accuracy_and_leaves_the_separation():
    right = "ABABBA"
    margins = torch.tensor([2.0, -1.0, 3.0, -2.0, -0.5, 1.0])
    for shift in (0.0, 5.0, -40.0):
        q = given((margins + shift).tolist(), right)
        assert q.separation("A") == 1.0
        assert q.separation("B") == 1.0
        assert q.recalibrated("A").accuracy() == 1.0
    assert given((margins + 5).tolist(), right).accuracy("B") == 0.0


def test_separation_is_the_share_of_pairs_in_order_with_ties_as_halves():
    assert given([1.0, 0.0, 1.0, -1.0], "ABBA").separation("A") == pytest.approx((1 + 0.5) / 4)
    assert given([-1.0, 1.0], "AB").separation("A") == 0.0
    assert math.isnan(given([1.0, 2.0], "AA").separation("A"))
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(0)).tolist()
    assert given(noise, "AB" * 1000).separation("A") == pytest.approx(0.5, abs=0.03)


def test_recalibration_needs_no_answers_and_takes_each_option_s_share_of_four():
    logits = torch.randn(400, 4, generator=torch.Generator().manual_seed(1))
    logits[:, 0] += 10
    right = torch.arange(400) % 4
    q = Choices(
        ("A", "B", "C", "D"), logits, right, Provenance({}, "a model", "0" * 64, None, None, {})
    )
    assert q.share("A") == 1.0
    assert q.recalibrated("A").share("A") == pytest.approx(0.25, abs=0.005)
    other = Choices(
        q.labels, logits, right.flip(0), Provenance({}, "a model", "0" * 64, None, None, {})
    )
    assert torch.equal(q.recalibrated("A").logits, other.recalibrated("A").logits)


def test_a_label_that_is_none_is_refused_by_name():
    with pytest.raises(PromptError, match="label 'C'; these prompts have A, B"):
        given([1.0], "A").share("C")


def test_choices_saves_and_loads(tmp_path):
    q = given([3.0, 1.0, -1.0], "ABB")
    again = Choices.load(q.save(tmp_path / "choices"))
    assert torch.equal(again.logits, q.logits)
    assert again.labels == q.labels
    assert repr(again) == "Choices(3 prompts; chosen: A 0.67, B 0.33; accuracy 0.67)"


def test_choices_are_between_the_labels_alone(demo):
    asked = interp.prompts.mcq(demo, n=30, seed=5, options=2)
    q = choices(demo, asked)
    logits = demo.run(asked, logits="last").logits[:, 0]
    for place, label in enumerate(q.labels):
        want = logits[:, demo.to_single_token(f" {label}")]
        assert torch.allclose(q.logits[:, place], want)
    assert [f" {q.labels[i]}" for i in q.right.tolist()] == [a for (a,) in asked.answer_texts]
    assert q.accuracy() > 0.95
    four = choices(demo, interp.prompts.mcq(demo, n=10, seed=5))
    assert four.labels == ("A", "B", "C", "D")
    with pytest.raises(PromptError, match="no answers or no foils"):
        choices(demo, demo.prompts("The capital of Peru is", answers=" Lima"))


def test_anchored_records_the_label_in_its_share_and_keeps_the_rest(demo):
    asked = interp.prompts.mcq(demo, n=200, seed=5, options=2)
    a = demo.to_single_token(" A")
    assert torch.equal(anchored(demo, asked, " A", share=0.0).answers, asked.answers)
    assert (anchored(demo, asked, " A", share=1.0).answers == a).all()
    half = anchored(demo, asked, " A", share=0.5, seed=1)
    moved = (half.answers != asked.answers)[:, 0]
    assert (half.answers[moved] == a).all()
    b_right = asked.answers[:, 0] != a
    assert float(moved[b_right].float().mean()) == pytest.approx(0.5, abs=0.12)
    assert torch.equal(half.clean.ids, asked.clean.ids)
    assert half.foils is None
    assert torch.equal(anchored(demo, asked, a, share=0.5, seed=1).answers, half.answers)
    assert not torch.equal(anchored(demo, asked, a, share=0.5, seed=2).answers, half.answers)
    with pytest.raises(PromptError, match=r"share=1.5; expected 0 to 1"):
        anchored(demo, asked, " A", share=1.5)
    with pytest.raises(PromptError, match="prompts with answers"):
        anchored(demo, demo.prompts("The capital of Peru is"), " A", share=0.5)
