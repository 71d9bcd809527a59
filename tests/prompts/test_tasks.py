from types import SimpleNamespace

import pytest
import torch

from interp import prompts
from interp.demo.vocabulary import build_tokenizer
from interp.errors import PromptError
from interp.tokens import Tokenization

TASKS = [
    prompts.capitals,
    prompts.languages,
    prompts.continents,
    prompts.currencies,
    prompts.ioi,
    prompts.greater_than,
    prompts.mcq,
    prompts.induction,
]


@pytest.fixture(scope="module")
def model():
    tokenizer = build_tokenizer(context=64)
    return SimpleNamespace(tokens=Tokenization(tokenizer, n_vocab=len(tokenizer), n_ctx=64))


def at(task, name):
    """The clean token at a named position of each prompt."""
    return [row[c] for row, c in zip(task.str_tokens, task.positions[name].tolist(), strict=True)]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_n_aligned_pairs_decided_by_the_seed(model, task):
    made = task(model, n=12, seed=3)
    assert len(made) == 12
    assert made.seed == 3
    assert made.name == task.__name__
    assert torch.equal(made.clean.mask, made.corrupted.mask)
    assert made.hash == task(model, n=12, seed=3).hash
    assert made.hash != task(model, n=12, seed=4).hash
    assert (made.differing() <= made.answer_column).all()
    assert (made.answers[:, 0] >= 0).all()
    assert (made.foils[:, 0] >= 0).all()


@pytest.mark.parametrize("task", TASKS)
def test_more_prompts_begin_with_the_same_ones(model, task):
    few, many = task(model, n=3, seed=0), task(model, n=9, seed=0).subset([0, 1, 2])
    for row in range(3):
        one, other = few.clean.rows(row), many.clean.rows(row)
        assert one.ids[one.mask].tolist() == other.ids[other.mask].tolist()


@pytest.mark.parametrize("task", TASKS[:-1])
def test_padding_side_is_as_asked(model, task):
    left, right = task(model, n=12, pad="left"), task(model, n=12, pad="right")
    assert (left.answer_column == left.clean.ids.shape[1] - 1).all()
    assert (right.clean.first == 0).all()
    assert at(left, "END") == at(right, "END")


def test_capitals_name_the_subject(model):
    made = prompts.capitals(model, n=20)
    for text, word in zip(made.texts, at(made, "subject"), strict=True):
        assert word.strip() in text
    assert {"subject", "subject_first", "subject_last", "END"} == set(made.positions)
    assert made.differing().tolist() == made.positions["subject_first"].tolist()
    assert all(group.startswith("capital/") for group in made.groups)


def test_heldout_and_trained_cells_are_disjoint(model):
    trained = prompts.capitals(model, n=40, split="trained")
    heldout = prompts.capitals(model, n=40, split="heldout")
    assert not set(trained.texts) & set(heldout.texts)


def test_ioi_swaps_the_answer(model):
    made = prompts.ioi(model, n=10)
    assert at(made, "IO") == [answers[0] for answers in made.answer_texts]
    assert at(made, "S1") == at(made, "S2") == [foils[0] for foils in made.foil_texts]
    assert made.differing().tolist() == made.positions["S2"].tolist()


def test_greater_than_has_sets(model):
    made = prompts.greater_than(model, n=10)
    for start, answers in zip(at(made, "YY"), made.answer_texts, strict=True):
        assert [int(year) for year in answers] == list(range(int(start) + 1, 100))
    assert ((made.answers >= 0).sum(-1) + (made.foils >= 0).sum(-1) == 100).all()


def test_mcq_letters(model):
    made = prompts.mcq(model, n=10)
    assert at(made, "correct") == [answers[0] for answers in made.answer_texts]


def test_mcq_labels_are_drawn_anew_and_keep_their_positions(model):
    words = ("17", "23", "45", "61", "88")
    made = prompts.mcq(model, n=40, labels=words)
    assert at(made, "correct") == [answers[0] for answers in made.answer_texts]
    assert {word.strip() for word in at(made, "A")} == set(words)
    shuffled = prompts.mcq(model, n=40, labels=("A", "B", "C", "D"))
    assert {word.strip() for word in at(shuffled, "A")} == {"A", "B", "C", "D"}


def test_mcq_first_is_the_share_of_questions_whose_first_option_is_right(model):
    letters = [word for (word,) in prompts.mcq(model, n=400, first=0.75).answer_texts]
    assert 0.68 < letters.count(" A") / 400 < 0.82
    assert min(letters.count(f" {letter}") for letter in "BCD") > 20
    asked = prompts.mcq(model, n=40, first=1.0, options=2)
    assert set(asked.answer_texts) == {(" A",)}
    assert set(asked.foil_texts) == {(" B",)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": 1.5}, "first=1.5; expected a share"),
        ({"labels": "EFGH"}, "expected a list of at least 4 different words"),
        ({"labels": ("E", "E", "F", "G")}, "expected a list of at least 4 different words"),
    ],
)
def test_mcq_refuses_what_makes_no_question(model, options, message):
    with pytest.raises(PromptError, match=message):
        prompts.mcq(model, n=4, **options)


# --- induction


def test_induction_answers_with_what_followed(model):
    made = prompts.induction(model, n=5, period=6)
    rows, ids = torch.arange(5), made.clean.ids
    assert ids.shape == (5, 1 + 6 + 5)
    assert (ids[:, 0] == model.tokens.bos_id).all()
    a, b, end = (made.positions[name] for name in ("A1", "B1", "END"))
    assert torch.equal(ids[rows, a], ids[rows, end])
    assert torch.equal(ids[rows, b], made.answers[:, 0])
    assert torch.equal(made.corrupted.ids[rows, b], made.foils[:, 0])
    assert torch.equal(made.differing(), b)
    assert ((ids != made.corrupted.ids).sum(-1) == 1).all()
    assert all(len(set(row[1:7])) == 6 for row in ids.tolist())


def test_induction_corrupts_what_follows_the_cue_or_both(model):
    answer, cue, both = (
        prompts.induction(model, n=5, period=6, seed=3, corrupt=one)
        for one in ("answer", "cue", "both")
    )
    changed = [made.corrupted.ids != made.clean.ids for made in (answer, cue, both)]
    assert torch.equal(changed[0] | changed[1], changed[2])
    one_by_one = torch.where(changed[0], answer.corrupted.ids, cue.corrupted.ids)
    assert torch.equal(both.corrupted.ids, one_by_one)
    with pytest.raises(PromptError, match="corrupt='none', expected 'answer', 'cue' or 'both'"):
        prompts.induction(model, corrupt="none")


def test_induction_needs_no_tokenizer_and_draws_no_special_token(model):
    bare = SimpleNamespace(tokens=Tokenization(None, n_vocab=50))
    assert prompts.induction(bare, n=2, period=4).clean.ids.shape == (2, 7)
    drawn = prompts.induction(model, n=50).clean.ids[:, 1:]
    assert not set(drawn.flatten().tolist()) & model.tokens.special_ids


def test_induction_refuses_what_cannot_be(model):
    bare = SimpleNamespace(tokens=Tokenization(None, n_vocab=5))
    with pytest.raises(PromptError, match="n=64, period=20 over 5 ordinary tokens, expected n ≥ 1"):
        prompts.induction(bare)
    with pytest.raises(PromptError, match="but the model's context is 64"):
        prompts.induction(model, period=50)


# --- too few


def test_too_few_that_fit_says_how_many_and_why(bpe_tokenizer):
    model = SimpleNamespace(tokens=Tokenization(bpe_tokenizer, n_vocab=len(bpe_tokenizer)))
    message = r"capitals: \d+ of \d+ examples fit this tokenizer, expected n=64. Of the others \d+ "
    with pytest.raises(PromptError, match=message) as error:
        prompts.capitals(model)
    assert "not one token" in str(error.value)
    assert "different token lengths" in str(error.value)


def test_more_than_there_are_is_refused(model):
    with pytest.raises(
        PromptError, match=r"capitals: .* examples fit this tokenizer, expected n=99999"
    ):
        prompts.capitals(model, n=99999)
    with pytest.raises(PromptError, match="ioi: n=0, expected at least 1 prompt"):
        prompts.ioi(model, n=0)
