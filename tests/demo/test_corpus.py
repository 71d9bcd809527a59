"""The demo corpus: a function of the seed and the step, and of nothing held out."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from interp.demo.corpus import IGNORED, batch, document, repeated_rows
from interp.demo.recipe import FULL, Mixture, RecipeError
from interp.demo.vocabulary import build_tokenizer
from interp.prompts import facts
from interp.prompts.templates import fill


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(context=FULL.context)


def only(**weights):
    """A mixture with no document but those of the given kinds."""
    none = dict.fromkeys(Mixture().documents, 0.0)
    return replace(Mixture(), **{**none, **weights})


def test_rows_depend_on_seed_and_step_alone(tokenizer):
    rows = [batch(FULL, tokenizer, seed=0, step=7)[0] for _ in range(2)]
    assert torch.equal(*rows)
    for seed, step in ((1, 7), (0, 8)):
        assert not torch.equal(rows[0], batch(FULL, tokenizer, seed=seed, step=step)[0])


def test_rows_are_full_and_begin_with_bos(tokenizer):
    rows, labels = batch(FULL, tokenizer, seed=0, step=0)
    assert rows.shape == labels.shape == (FULL.rows, FULL.context)
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    assert (rows[:, 1:] != tokenizer.bos_token_id).all()
    assert tokenizer.unk_token_id not in rows
    assert ((labels == rows) | (labels == IGNORED)).all()


def test_only_repeats_count_in_rows_of_random_tokens(tokenizer):
    recipe = replace(FULL, curriculum=(Mixture(repeats=1.0),))
    rows, labels = batch(recipe, tokenizer, seed=0, step=0)
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        assert IGNORED in label
        for at, wanted in enumerate(label):
            assert wanted == IGNORED or wanted in row[:at]


def test_held_out_cells_are_never_stated():
    stated = {
        document(only(facts=1.0), source) for source in [random.Random(0)] for _ in range(25_000)
    }
    for name in facts.relation_names():
        relation = facts.relation(name)
        texts = {
            split: {
                fill(
                    relation.templates[index],
                    {"subject": country["country"], "object": country[name]},
                )[0]
                for index, country in facts.cells(name, split)
            }
            for split in ("trained", "heldout")
        }
        assert not texts["heldout"] & stated
        assert len(texts["trained"] & stated) > 0.95 * len(texts["trained"])


def test_forward_only_countries_never_come_after_their_capital():
    mixture = only(facts=1.0, capital=1.0, reverse=1.0)
    source = random.Random(0)
    backwards = set()
    for _ in range(3000):
        words = document(mixture, source).replace(",", "").split()
        places = {
            row["country"]: (words.index(row["country"]), words.index(row["capital"]))
            for row in facts.countries()
            if row["country"] in words and row["capital"] in words
        }
        backwards |= {name for name, (country, capital) in places.items() if capital < country}
    forward = {row["country"] for row in facts.countries() if facts.is_forward_only(row["country"])}
    assert 15 < len(forward) < 45
    assert backwards == {row["country"] for row in facts.countries()} - forward


def test_multiple_choice_is_balanced():
    source = random.Random(0)
    letters = Counter(document(only(mcq=1.0, options=(2,)), source)[-1] for _ in range(1000))
    assert set(letters) == {"A", "B"}
    assert 440 < letters["A"] < 560
    assert {document(only(mcq=1.0), source)[-1] for _ in range(200)} == set("ABCD")


def test_mixtures_follow_one_another():
    first, second = Mixture(until=0.4, repeats=0.9), Mixture()
    recipe = replace(FULL, steps=10, keep=(), curriculum=(first, second))
    assert [recipe.mixture_at(step) is first for step in range(10)] == [True] * 4 + [False] * 6


def test_repeated_rows_hold_two_copies(tokenizer):
    rows = repeated_rows(tokenizer, rows=3, period=10, seed=1)
    assert rows.shape == (3, 21)
    assert torch.equal(rows[:, 1:11], rows[:, 11:])
    assert torch.equal(rows, repeated_rows(tokenizer, rows=3, period=10, seed=1))


def test_impossible_mixtures_are_refused():
    with pytest.raises(RecipeError, match=r"repeats must lie in \[0, 1\], got 2"):
        Mixture(repeats=2.0)
    with pytest.raises(RecipeError, match="weight above 0"):
        only()
