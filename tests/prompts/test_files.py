import json
from types import SimpleNamespace

import pytest
import torch

from interp import prompts
from interp.errors import PromptError
from interp.tokens import Tokenization

FRANCE, JAPAN, PERU = (f"The capital of {x} is" for x in ("France", "Japan", "Peru"))


@pytest.fixture
def model(bpe_tokenizer):
    return SimpleNamespace(tokens=Tokenization(bpe_tokenizer, n_vocab=len(bpe_tokenizer)))


def write(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def line(**more):
    return {"clean": FRANCE, "corrupted": JAPAN, "answer": " Paris", "foil": " Tokyo", **more}


def test_jsonl(model, tmp_path):
    made = prompts.load(
        model,
        write(
            tmp_path / "capitals.jsonl",
            line(positions={"subject": " France", "two": 2, "span": [15, 21]}, group="a"),
            "",
            line(positions={"subject": "France", "two": 2, "span": [4, 11]}, group="b"),
        ),
    )
    assert made.name == "capitals"
    assert made.groups == ("a", "b")
    assert made.positions["subject"].tolist() == [4, 4]
    assert made.positions["span"].tolist() == [4, 2]
    assert made.foil_texts == ((" Tokyo",), (" Tokyo",))


def test_csv(model, tmp_path):
    path = write(
        tmp_path / "capitals.csv",
        "clean,corrupted,answer,foil",
        f"{FRANCE},{JAPAN}, Paris, Tokyo",
        f'"{PERU}",{JAPAN}, Lima, Tokyo',
    )
    made = prompts.load(model, path)
    assert made.texts == (FRANCE, PERU)
    assert made.answer_texts == ((" Paris",), (" Lima",))


@pytest.mark.parametrize("pad", ["right", "left"])
def test_saved_prompts_load_as_they_were(model, tmp_path, pad):
    made = prompts.build(
        model.tokens,
        [FRANCE, "The capital of Ivory Coast is\u2028"],
        [JAPAN, "The capital of Ivory Coast is\u2028"],
        answers=[[" Paris"], [" Lima", " Tokyo"]],
        foils=[" Tokyo", " Paris"],
        positions={"subject": ["France", "Coast"]},
        groups=["a", "b"],
        pad=pad,
    )
    prompts.save(made, tmp_path / "x.jsonl")
    again = prompts.load(model, tmp_path / "x.jsonl", pad=pad)
    assert again.hash == made.hash
    assert torch.equal(again.positions["subject"], made.positions["subject"])
    assert (again.groups, again.texts) == (made.groups, made.texts)
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_token_prompts_are_saved_as_ids(tmp_path):
    bare = SimpleNamespace(tokens=Tokenization(None, n_vocab=50))
    made = prompts.induction(bare, n=3, period=5)
    prompts.save(made, tmp_path / "x.jsonl")
    assert prompts.load(bare, tmp_path / "x.jsonl").hash == made.hash


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(), "{"], r"x.jsonl, line 2 is not JSON"),
        ([line(), [1]], r"x.jsonl, line 2 is a list, expected an object"),
        ([line(cleen="")], r"line 1 has the key 'cleen'.* nearest are 'clean'"),
        ([line(answers=[" Paris"])], r"line 1 has both 'answer' and 'answers'"),
        ([line(), {"clean": FRANCE}], r"line 2 has the keys clean, expected clean, corrupted"),
        ([{"answer": " Paris"}], r"line 1 has the keys answer, expected clean"),
        ([line(), line(answer=" Coast")], r"x.jsonl, line 2: .*' Coast' is 6 tokens"),
        ([line(), line(clean=FRANCE + " so")], r"x.jsonl, line 2: pair 0 has \d+ clean and 6"),
        ([{"clean": FRANCE}, {"clean": [1, 2]}], r"x.jsonl: prompts are .* all to be text or all"),
        ([line(positions={"a": 1}), line(positions={})], r"position 'a' is None, expected a word"),
        ([line(positions={"a": "Peru"})], r"line 1: position 'a': 'Peru' occurs 0 times"),
        ([""], r"x.jsonl has no prompts, expected at least one line"),
    ],
)
def test_bad_lines_are_named(model, tmp_path, lines, message):
    with pytest.raises(PromptError, match=message):
        prompts.load(model, write(tmp_path / "x.jsonl", *lines))


def test_ragged_csv_is_refused(model, tmp_path):
    path = write(tmp_path / "x.csv", "clean,answer", f"{FRANCE}, Paris, Lyon")
    with pytest.raises(PromptError, match=r"x.csv, line 2 has not as many fields as the heading"):
        prompts.load(model, path)


def test_bad_files_are_refused(model, tmp_path):
    with pytest.raises(PromptError, match=r"x.txt ends in '.txt', expected '.jsonl' or '.csv'"):
        prompts.load(model, tmp_path / "x.txt")
    with pytest.raises(PromptError, match=r"cannot read .*x.csv: No such file"):
        prompts.load(model, tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(PromptError, match=r"x.csv is not UTF-8 text"):
        prompts.load(model, tmp_path / "x.csv")


def test_save_refuses_and_leaves_nothing(model, tmp_path):
    made = prompts.build(model.tokens, FRANCE)
    with pytest.raises(PromptError, match=r"x.csv ends in '.csv', expected '.jsonl'"):
        prompts.save(made, tmp_path / "x.csv")
    with pytest.raises(PromptError, match=r"cannot write .*x.jsonl: No such file"):
        prompts.save(made, tmp_path / "none" / "x.jsonl")
    assert not list(tmp_path.iterdir())
