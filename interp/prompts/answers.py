"""Answers and foils: sets of token ids, one set per prompt.

An answer is one token. A word of several tokens is refused, never cut to its first
piece: whoever wants the first piece says so by giving its id, and whoever wants to
score the whole word passes a callable metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError
from interp.tokens import Tokenization

__all__ = ["Answers", "answer_ids", "answer_sets", "pad_sets"]

#: One answer per prompt or one set per prompt, as text or as token ids.
Answers = str | Sequence[str | int | Sequence[str | int]] | Int[Tensor, "prompt *set"]


def answer_sets(answers: Answers, n: int, *, word: str = "answers") -> list[list[str | int]]:
    """What the caller gave, as one list per prompt.

    >>> answer_sets([" Paris", [" Tokyo", " Kyoto"]], 2)
    [[' Paris'], [' Tokyo', ' Kyoto']]
    """
    if isinstance(answers, Tensor):
        answers = answers.tolist()
    rows = [answers] if isinstance(answers, str | int) else list(answers)
    sets = [[row] if isinstance(row, str | int) else [a for a in row if a != -1] for row in rows]
    if len(sets) != n:
        raise PromptError(
            f"there are {len(sets)} {word} for {n} prompts, expected one for each. "
            f"Nest several {word} of one prompt in a list of their own."
        )
    empty = [row for row, one in enumerate(sets) if not one]
    if empty:
        raise PromptError(
            f"prompt {empty[0]} has no {word}, expected at least one. Give one, or drop the prompt."
        )
    return sets


def answer_ids(
    tokens: Tokenization,
    sets: Sequence[Sequence[str | int]],
    texts: Sequence[str] | None,
    *,
    word: str = "answers",
) -> Int[Tensor, "prompt set"]:
    """Token ids of every set, padded with -1 on the right.

    Args:
        sets: strings or ids, one list per prompt.
        texts: the prompts that the strings continue, if known.
    """
    rows = []
    for row, given in enumerate(sets):
        strings = [one for one in given if isinstance(one, str)]
        if strings and tokens.n_out is not None:
            raise PromptError(
                f"prompt {row}, {word}: {strings[0]!r} is a word, but this model answers in "
                f"{tokens.n_out} columns that are no tokens of its input: give their numbers."
            )
        try:
            after = texts[row] if texts else None
            ids = tokens.to_single_tokens(strings, after=after) if strings else []
        except PromptError as error:
            raise PromptError(
                f"prompt {row}, {word}: {error} Answers of several tokens are refused, never "
                "truncated: give the id of the first token if that is meant, or a callable metric."
            ) from error
        found = iter(ids)
        rows.append([next(found) if isinstance(one, str) else one for one in given])
        _check_vocabulary(rows[-1], tokens.n_out or tokens.n_vocab, row, word)
    return pad_sets(rows)


def pad_sets(rows: Sequence[Sequence[int]]) -> Int[Tensor, "prompt set"]:
    """Rows of ids without repeats, padded with -1 on the right."""
    unique = [list(dict.fromkeys(row)) for row in rows]
    width = max(len(row) for row in unique)
    return torch.tensor([row + [-1] * (width - len(row)) for row in unique])


def _check_vocabulary(ids: Sequence[int], n_vocab: int, row: int, word: str) -> None:
    outside = [index for index in ids if not 0 <= index < n_vocab]
    if outside:
        raise PromptError(
            f"prompt {row}, {word}: id {outside[0]} is not in the vocabulary, expected 0 to "
            f"{n_vocab - 1}. Look it up with model.to_single_token."
        )
