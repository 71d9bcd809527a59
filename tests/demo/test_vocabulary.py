"""The demo tokenizer: one token per word, and text comes back as it went in."""

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer

from interp.demo.corpus import document
from interp.demo.recipe import Mixture
from interp.demo.vocabulary import build_tokenizer, vocabulary
from interp.prompts import facts
from interp.prompts.templates import load_table


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(context=128)


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)


def test_no_token_twice():
    assert len(set(vocabulary())) == len(vocabulary())
    assert 800 <= len(vocabulary()) <= 1100


def test_text_comes_back(tokenizer):
    source = random.Random(0)
    for _ in range(500):
        text = document(Mixture(), source) + "."
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris", ["▁Paris"]),
        (" Paris", ["▁Paris"]),
        ("is Paris.", ["▁is", "▁Paris", "."]),
        ("the year 1732", ["▁the", "▁year", "▁17", "32"]),
        ("33", ["33"]),
        ("A: Rome B:", ["▁A", ":", "▁Rome", "▁B", ":"]),
        ("shop, John", ["▁shop", ",", "▁John"]),
        ("Atlantis", ["<unk>"]),
    ],
)
def test_pieces(tokenizer, text, expected):
    assert pieces(tokenizer, text) == expected


def test_every_name_is_one_token(tokenizer):
    words = [word for country in facts.countries() for word in country.values()]
    words += load_table("ioi")["names"] + load_table("greater_than")["nouns"]
    for word in words:
        assert pieces(tokenizer, f" {word}") == [f"▁{word}"]


def test_offsets_find_words(tokenizer):
    text = "The capital of Peru is"
    found = tokenizer(text, return_offsets_mapping=True)
    at = found.tokens().index("▁Peru")
    start, end = found.offset_mapping[at]
    assert text[start:end].strip() == "Peru"


def test_it_loads_from_its_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "When Mary and John went to the store, John gave a drink to Mary"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.bos_token == "<bos>"
    assert loaded.model_max_length == 128
