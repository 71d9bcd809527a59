import dataclasses

import pytest
import torch

from interp.errors import PromptError
from interp.prompts import Prompts, build
from interp.prompts.positions import resolve_columns
from interp.tokens import TokenBatch, Tokenization

FRANCE, JAPAN, PERU = (f"The capital of {x} is" for x in ("France", "Japan", "Peru"))
IVORY = "The capital of Ivory Coast is"


@pytest.fixture
def tokens(bpe_tokenizer):
    return Tokenization(bpe_tokenizer, n_vocab=len(bpe_tokenizer), n_ctx=64)


@pytest.fixture
def pairs(tokens):
    return build(
        tokens,
        [FRANCE, PERU],
        [JAPAN, JAPAN],
        answers=[" Paris", " Lima"],
        foils=[[" Tokyo"], [" Tokyo", " Paris"]],
        positions={"subject": [" France", " Peru"]},
        groups=["a", "b"],
        name="capitals",
    )


def ids_only(**more):
    clean = torch.tensor([[1, 2, 3], [4, 5, 6]])
    return build(Tokenization(None, n_vocab=10), clean, clean + 1, **more)


def test_a_pair_knows_its_parts(tokens, pairs):
    assert len(pairs) == 2
    assert repr(pairs) == "Prompts('capitals', 2 pairs of 6 tokens, subject, END)"
    assert tokens.to_string(pairs.answers[:, 0]) == " Paris Lima"
    assert pairs.foils[0].tolist() == [tokens.to_single_token(" Tokyo"), -1]
    assert pairs.answer_column.tolist() == pairs.positions["END"].tolist() == [5, 5]
    assert [
        row[c] for row, c in zip(pairs.str_tokens, pairs.positions["subject"], strict=True)
    ] == [
        " France",
        " Peru",
    ]
    assert pairs.differing().tolist() == [4, 4]


def test_identical_pairs_never_differ(tokens):
    assert build(tokens, FRANCE, FRANCE).differing().tolist() == [6]


def test_one_string_is_one_prompt(tokens):
    one = build(tokens, FRANCE, answers=" Paris")
    assert one.corrupted is None
    assert one.answers.tolist() == [[tokens.to_single_token(" Paris")]]
    with pytest.raises(PromptError, match=r"differing\(\) needs corrupted prompts"):
        one.differing()


@pytest.mark.parametrize("pad", ["right", "left"])
def test_lengths_may_differ_between_pairs(tokens, pad):
    prompts = build(
        tokens, [FRANCE, IVORY], [JAPAN, IVORY], positions={"subject": ["France", "Coast"]}, pad=pad
    )
    assert prompts.clean.padded
    for row, word in enumerate(("France", "t")):
        column = prompts.positions["subject"][row]
        assert prompts.str_tokens[row][column].strip() == word
        assert prompts.str_tokens[row][prompts.answer_column[row]] == " is"
    assert prompts.str_tokens[0].count("") == int((~prompts.clean.mask[0]).sum())


def test_misaligned_pair_is_shown(tokens):
    with pytest.raises(PromptError) as error:
        build(tokens, [FRANCE, PERU], [JAPAN, IVORY])
    text = str(error.value)
    assert "pair 1 has 6 clean and 17 corrupted tokens, expected one length" in text
    assert "  clean:     |<|endoftext|>|The| capital| of| Peru| is|" in text
    assert "  corrupted: |<|endoftext|>|The| capital| of|     |I  |v|o|r|y| |C|o|a|s|t| is|" in text
    assert "Try words that split into equally many tokens" in text


def test_pairs_come_in_twos(tokens):
    with pytest.raises(PromptError, match="there are 2 clean and 1 corrupted prompts"):
        build(tokens, [FRANCE, PERU], [JAPAN])


def test_twins_must_be_padded_alike():
    ids = torch.tensor([[1, 2, 3]])
    left, right = torch.tensor([[False, True, True]]), torch.tensor([[True, True, False]])
    with pytest.raises(PromptError, match="are padded differently, expected the same mask"):
        Prompts(TokenBatch(ids, left), TokenBatch(ids, right))


# --- answers


def test_ids_are_answers_too():
    given = ids_only(answers=torch.tensor([7, 8]), foils=[[1, 1], [2, 3]])
    assert given.answers.tolist() == [[7], [8]]
    assert given.foils.tolist() == [[1, -1], [2, 3]]
    assert ids_only(answers=torch.tensor([[7, 8], [9, -1]])).answers.tolist() == [[7, 8], [9, -1]]


def test_answer_of_several_tokens_is_refused_and_shown(tokens):
    message = r"prompt 0, answers: ' Coast' is 6 tokens \[' ', 'C', 'o', .* never truncated"
    with pytest.raises(PromptError, match=message):
        build(tokens, FRANCE, answers=" Coast")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"answers": [1, 10]},
            "prompt 1, answers: id 10 is not in the vocabulary, expected 0 to 9",
        ),
        ({"answers": [1]}, "there are 1 answers for 2 prompts, expected one for each"),
        ({"answers": [1, []]}, "prompt 1 has no answers, expected at least one"),
        (
            {"answers": [1, 2], "foils": [3, 2]},
            "prompt 1 has token 2 both as an answer and as a foil",
        ),
        ({"answers": [" Paris", 2]}, "loaded without one"),
        ({"groups": ["a"]}, "'groups' has 1 entries for 2 prompts"),
    ],
)
def test_bad_answers_are_refused(more, message):
    with pytest.raises(PromptError, match=message):
        ids_only(**more)


@pytest.mark.parametrize("answers", [[[-1, 2]], [[1, -1, 2]], [1]])
@pytest.mark.bad_input
def test_sets_are_padded_on_the_right(answers):
    with pytest.raises(PromptError, match=r"expected token ids \[prompt, set\] with at least one"):
        Prompts(TokenBatch.of(torch.tensor([1, 2])), answers=torch.tensor(answers))


def test_answer_outside_a_word_vocabulary_is_refused(word_tokenizer):
    words = Tokenization(word_tokenizer, n_vocab=len(word_tokenizer))
    with pytest.raises(PromptError, match="'Narnia' has a word that is not in the vocabulary"):
        build(words, FRANCE, answers="Narnia")


# --- positions


def test_positions_by_word_span_integer_and_tensor(tokens):
    start = FRANCE.index("capital")
    prompts = build(
        tokens,
        [FRANCE, PERU],
        positions={
            "first": 0,
            "last": [-1, 5],
            "word": "capital",
            "span": (start, start + 7),
            "tensor": torch.tensor([1, 2]),
        },
    )
    named = {name: column.tolist() for name, column in prompts.positions.items()}
    assert named == {
        "first": [0, 0],
        "last": [5, 5],
        "word": [2, 2],
        "span": [2, 2],
        "tensor": [1, 2],
        "END": [5, 5],
    }


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("Japan", "'Japan' occurs 0 times in prompt 0 .* expected once"),
        ("a", "'a' occurs 3 times in prompt 0"),
        (9, "position 9 is outside prompt 0, which has 6 tokens"),
        ([1, 2], "position 'x' is given for 2 prompts, expected 1"),
    ],
)
def test_bad_positions_are_refused(tokens, place, message):
    with pytest.raises(PromptError, match=message):
        build(tokens, FRANCE, positions={"x": place})


def test_words_cannot_be_found_in_tokens():
    with pytest.raises(
        PromptError, match="position 'x' is given as 'word', but these prompts came"
    ):
        ids_only(positions={"x": "word"})


def test_end_always_means_the_last_token(tokens):
    with pytest.raises(PromptError, match="it always means the last real token"):
        build(tokens, FRANCE, positions={"END": 0})


def test_columns_of_integers_and_names(pairs):
    assert pairs.columns("subject").tolist() == [4, 4]
    assert pairs.columns(-1).tolist() == pairs.columns("END").tolist() == [5, 5]
    assert resolve_columns("END", pairs.clean, {}).tolist() == [5, 5]
    with pytest.raises(PromptError, match=r"no position is called 'subjct' .*'subject'"):
        pairs.columns("subjct")


# --- identity and parts


def test_hash_is_of_what_is_run_and_asked(pairs):
    renamed = dataclasses.replace(pairs, name="other", groups=None)
    assert renamed.hash == pairs.hash
    assert len(pairs.hash) == 64
    others = [
        dataclasses.replace(pairs, answers=None),
        dataclasses.replace(pairs, answers=pairs.answers.flip(0), foils=None),
        dataclasses.replace(pairs, clean=pairs.corrupted),
        pairs.subset([1, 0]),
    ]
    assert len({pairs.hash, *(other.hash for other in others)}) == 5


def test_hash_is_stable():
    assert ids_only(answers=[7, 8]).hash == (
        "4bde9c3715a26f6e18206fa3c1c20dbd337778f6593cd97febe910f12358b997"
    )


def test_hash_ignores_what_stands_at_padding():
    mask = torch.tensor([[True, True, False]])
    first, second = (Prompts(TokenBatch(torch.tensor([[1, 2, x]]), mask)) for x in (0, 9))
    assert first.hash == second.hash


def test_subset_keeps_every_part_in_step(pairs):
    one = pairs.subset([1])
    assert one.texts == (PERU,)
    assert one.groups == ("b",)
    assert one.answers.tolist() == pairs.answers[1:].tolist()
    assert one.positions["subject"].tolist() == [4]
    assert pairs.subset(slice(None)).hash == pairs.hash
    assert pairs.subset([1, 0]).subset(torch.tensor([1, 0])).hash == pairs.hash
    with pytest.raises(PromptError, match=r"a subset of 2 prompts by \[2\] has nothing or reaches"):
        pairs.subset([2])


def test_split_is_disjoint_and_decided_by_the_seed():
    clean = torch.arange(1, 10)[:, None]
    nine = build(Tokenization(None, n_vocab=10), clean)
    first, second = nine.split(1 / 3, seed=1)
    assert len(first) == 3
    assert sorted(torch.cat([first.clean.ids, second.clean.ids])[:, 0].tolist()) == [*range(1, 10)]
    assert nine.split(1 / 3, seed=1)[0].hash == first.hash
    assert nine.split(1 / 3, seed=2)[0].hash != first.hash
    with pytest.raises(PromptError, match=r"split\(0.01\) of 9 prompts leaves one part empty"):
        nine.split(0.01)


def test_show_lines_tokens_up(pairs):
    assert pairs.show(1).splitlines() == [
        repr(pairs),
        "0 · answer ' Paris' · foil ' Tokyo' · subject@4 END@5",
        "  clean:     |<|endoftext|>|The| capital| of| France| is|",
        "  corrupted: |<|endoftext|>|The| capital| of| Japan | is|",
        "… and 1 more",
    ]
    assert "  clean:     |1|2|3|" in ids_only().show()
