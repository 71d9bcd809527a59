"""Task examples: text only, deterministic, and corrupted where the answer is decided."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from interp.demo.vocabulary import build_tokenizer
from interp.errors import PromptError
from interp.prompts import examples, facts
from interp.prompts.templates import fill, load_table, prompt_part

TASKS = {
    "capitals": lambda seed: examples.capitals(40, seed),
    "language": lambda seed: examples.relation("language", 40, seed),
    "continent": lambda seed: examples.relation("continent", 40, seed, split="heldout"),
    "currency": lambda seed: examples.relation("currency", 40, seed, split="trained"),
    "ioi": lambda seed: examples.ioi(40, seed),
    "ioi-abc": lambda seed: examples.ioi(40, seed, corruption="abc"),
    "greater_than": lambda seed: examples.greater_than(40, seed),
    "mcq": lambda seed: examples.mcq(40, seed, options=(2, 3, 4)),
}

everywhere = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(context=128)


@everywhere
def test_same_seed_same_examples(task):
    assert task(3) == task(3)
    assert task(3) != task(4)


@everywhere
def test_prompts_stop_before_their_answer(task):
    for example in task(0):
        assert example.clean == example.clean.strip()
        assert example.answer in example.answers
        assert example.foil in example.foils
        assert not set(example.answers) & set(example.foils)


@everywhere
def test_clean_and_corrupted_differ_and_have_as_many_tokens(task, tokenizer):
    for example in task(0):
        clean, corrupted = tokenizer([example.clean, example.corrupted]).input_ids
        assert clean != corrupted
        assert len(clean) == len(corrupted)
        assert tokenizer.unk_token_id not in clean + corrupted


@everywhere
def test_every_answer_is_one_token(task, tokenizer):
    for example in task(0):
        for word in (*example.answers, *example.foils):
            ids = tokenizer(word, add_special_tokens=False).input_ids
            assert len(ids) == 1
            assert ids[0] != tokenizer.unk_token_id


@everywhere
def test_spans_cover_whole_words(task):
    for example in task(0):
        assert set(example.spans) == set(example.corrupted_spans)
        for text, spans in (
            (example.clean, example.spans),
            (example.corrupted, example.corrupted_spans),
        ):
            for start, end in spans.values():
                assert re.fullmatch(r"\w+", text[start:end])


def test_capitals_ask_for_what_the_table_says():
    table = {row["country"]: row["capital"] for row in facts.countries()}
    for example in examples.capitals(None, 0):
        subject, other = (
            text[slice(*spans["subject"])]
            for text, spans in (
                (example.clean, example.spans),
                (example.corrupted, example.corrupted_spans),
            )
        )
        assert example.answer == f" {table[subject]}"
        assert example.foil == f" {table[other]}"


def test_splits_part_the_cells():
    for name in facts.relation_names():
        everything = examples.relation(name, None, 0)
        trained = examples.relation(name, None, 0, split="trained")
        heldout = examples.relation(name, None, 0, split="heldout")
        texts = [{example.clean for example in part} for part in (trained, heldout)]
        assert not texts[0] & texts[1]
        assert texts[0] | texts[1] == {example.clean for example in everything}
        assert 0.08 < len(heldout) / len(everything) < 0.17


def test_ioi_swap_changes_the_second_subject_only():
    for example in examples.ioi(60, 0):
        names = {role: example.clean[slice(*example.spans[role])] for role in ("IO", "S1", "S2")}
        assert names["S1"] == names["S2"] != names["IO"]
        assert (example.answer, example.foil) == (f" {names['IO']}", f" {names['S1']}")
        start, end = example.corrupted_spans["S2"]
        assert example.corrupted[start:end] == names["IO"]
        assert example.corrupted[:start] == example.clean[:start]


def test_ioi_comes_in_both_orders():
    orders = [example.group.rsplit("/")[-1] for example in examples.ioi(200, 0)]
    assert 70 < orders.count("ABBA") < 130
    for example in examples.ioi(20, 0):
        first = min(example.spans, key=lambda role: example.spans[role])
        assert first == ("IO" if example.group.endswith("ABBA") else "S1")


def test_ioi_abc_names_a_third_person():
    for example in examples.ioi(20, 0, corruption="abc"):
        start, end = example.corrupted_spans["S2"]
        assert example.corrupted.count(example.corrupted[start:end]) == 1


def test_greater_than_answers_are_the_later_years():
    for example in examples.greater_than(60, 0):
        start = int(example.clean[slice(*example.spans["YY"])])
        assert [int(year) for year in example.answers] == list(range(start + 1, 100))
        assert len(example.answers) + len(example.foils) == 100
        assert example.corrupted[slice(*example.corrupted_spans["YY"])] == "01"


def test_mcq_letters_are_even_and_name_the_answer():
    asked = examples.mcq(400, 0)
    counts = [sum(example.answer == f" {letter}" for example in asked) for letter in "ABCD"]
    assert min(counts) > 70
    table = {row["country"]: row["capital"] for row in facts.countries()}
    for example in asked:
        clean = {role: example.clean[slice(*span)] for role, span in example.spans.items()}
        other = example.corrupted[slice(*example.corrupted_spans["subject"])]
        assert clean["correct_option"] == table[clean["subject"]]
        assert clean["foil_option"] == table[other]
        assert (example.answer, example.foil) == (f" {clean['correct']}", f" {clean['foil']}")


def test_templates_end_in_their_answer():
    for name in facts.relation_names():
        relation = facts.relation(name)
        assert len(relation.templates) >= 6
        for text in relation.templates:
            assert prompt_part(text, "object").count("{subject}") == 1
        for text in relation.reverse_templates:
            assert prompt_part(text, "subject").count("{object}") == 1
    assert len(load_table("ioi")["templates"]) >= 4


def test_the_country_table_is_plain():
    rows = facts.countries()
    assert len(rows) >= 110
    assert (
        len({row["country"] for row in rows}) == len({row["capital"] for row in rows}) == len(rows)
    )
    for row in rows:
        for column, word in row.items():
            assert re.fullmatch(r"[a-z]+" if column == "currency" else r"[A-Z][a-z]+", word)
    known = {row["country"]: row for row in rows}
    assert known["France"] == {
        "country": "France",
        "capital": "Paris",
        "continent": "Europe",
        "language": "French",
        "currency": "euro",
    }
    assert known["Japan"]["currency"] == "yen"
    assert known["Australia"]["capital"] == "Canberra"


def test_fill_numbers_a_slot_that_stands_twice():
    text, spans = fill("{a} and {b} or {a}", {"a": "x", "b": "yy"})
    assert text == "x and yy or x"
    assert spans == {"a": (0, 1), "b": (6, 8), "a2": (12, 13)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: examples.relation("capitol", 1, 0), "no relation named 'capitol'.*'capital'"),
        (lambda: examples.capitals(10_000, 0), "has 960 cells .* got n=10000"),
        (lambda: examples.capitals(1, 0, split="test"), "split must be one of .* got 'test'"),
        (lambda: examples.ioi(1, 0, corruption="xyz"), "corruption must be one of .* got 'xyz'"),
        (lambda: examples.mcq(1, 0, options=9), "2 to 4 options, got 9"),
        (lambda: fill("{a} {b}", {"a": "x"}), r"slot \{b\}.*only for \['a'\]"),
        (lambda: prompt_part("{object} is", "object"), "must end in its answer"),
        (lambda: load_table("relation"), "no prompt data named 'relation'.*'relations'"),
    ],
)
def test_bad_requests_say_what_to_try(call, message):
    with pytest.raises(PromptError, match=message):
        call()


def test_examples_need_no_torch():
    folder = Path(examples.__file__).parent
    for name in ("example", "examples", "facts", "greater_than", "ioi", "mcq", "templates"):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {getattr(node, "module", None) or node.names[0].name for node in imports}
        assert not {module.split(".")[0] for module in modules} & {"torch", "transformers"}
