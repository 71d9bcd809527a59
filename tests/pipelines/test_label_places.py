"""Changed labels: two right answers for each question, and a control that has neither."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import PromptError
from interp.pipelines import label_places
from interp.pipelines.head_subspaces import head_subspaces
from interp.pipelines.labels import against_all

NAMES = ("Mary", "John", "Tom", "Anna")


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def usual(model):
    return interp.prompts.mcq(model, n=24, seed=3)


@pytest.fixture(scope="module")
def letters(usual):
    return label_places.letters_of(usual)


def test_letters_stand_at_their_places(model, usual, letters):
    assert model.tokenizer.convert_ids_to_tokens(letters.tolist()) == ["▁A", "▁B", "▁C", "▁D"]
    places = label_places.place_of(usual)
    assert torch.equal(letters[places], usual.answers[:, 0])
    assert torch.equal(10 + 3 * places, usual.columns("correct"))


def test_by_place_changes_nothing_where_letters_stand_in_order(model, usual, letters):
    asked = label_places.by_place(usual, letters)
    assert torch.equal(asked.answers, usual.answers)
    assert asked.foils.shape == (24, 3)
    assert not (asked.foils == asked.answers).any()
    right = label_places.chosen(model, asked)
    assert float(right.float().mean()) > 0.9
    logits = model.run(usual, logits="last").logits[:, 0]
    expected = logits.gather(1, asked.answers)[:, 0] - logits.gather(1, asked.foils).mean(1)
    assert torch.allclose(label_places.preference(model, asked), expected, atol=1e-5)


def test_other_labels_have_another_answer_by_place(model, letters):
    named = interp.prompts.mcq(model, n=24, seed=3, labels=NAMES)
    asked = label_places.by_place(named, letters)
    assert not torch.isin(named.answers, letters).any()
    assert torch.equal(asked.answers[:, 0], letters[label_places.place_of(named)])
    by_label = label_places.chosen(model, against_all(named))
    by_place = label_places.chosen(model, asked)
    assert by_place.float().mean() > by_label.float().mean()


def test_dealt_moves_right_places_to_other_questions(usual):
    dealt = label_places.dealt(usual, seed=0)
    own, theirs = label_places.place_of(usual), label_places.place_of(dealt)
    assert torch.equal(own.sort().values, theirs.sort().values)
    assert not torch.equal(own, theirs)
    for place, column in zip(
        theirs.tolist(), dealt.columns("correct_option").tolist(), strict=True
    ):
        assert column == int(dealt.columns(f"option_{'ABCD'[place]}")[0])
    assert torch.equal(theirs, label_places.place_of(label_places.dealt(usual, seed=0)))


def test_coordinates_along_all_directions_keep_distances(model, usual):
    head = (2, 3)
    subspaces = head_subspaces(model, usual, [head], centre="all")
    found = label_places.coordinates(model, usual, subspaces, head, "k", rank=model.d_head)
    assert found.shape == (24, 8, model.d_head)
    assert torch.allclose(found.mean((0, 1)), torch.zeros(model.d_head), atol=1e-4)
    spread = found.flatten(0, 1).var(0)
    assert torch.all(spread[:-1] >= spread[1:] - 1e-5)
    keys = model.run(usual, save=["L2.k"], logits="none").cache["L2.k"][:, :, 3]
    a, b = keys[0, 10], keys[1, 14]  # the first label; the token behind the second
    assert torch.isclose((found[0, 0] - found[1, 3]).norm(), (a - b).norm(), atol=1e-3)


def test_what_cannot_be_asked_is_said(model, usual, letters):
    with pytest.raises(PromptError, match="3 letters for 4 options"):
        label_places.by_place(usual, letters[:3])
    with pytest.raises(PromptError, match="labels in their order"):
        label_places.letters_of(interp.prompts.mcq(model, n=24, seed=3, labels=NAMES))
    with pytest.raises(PromptError, match="expected 'k' or 'v'"):
        label_places.coordinates(model, usual, head_subspaces(model, usual, [(2, 3)]), (2, 3), "q")
