"""Where in a prompt? Integers, names, words and characters, all made into columns.

A *position* is what a person means: an integer counted among a prompt's real tokens
(negative from the end), or a name such as ``subject`` or ``END`` that the prompts
define. A *column* is where that stands in the padded tensor, and differs by prompt.

``resolve_columns`` reads positions, for runs and edits; ``locate`` defines named ones, when
prompts are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError, nearest
from interp.token_batch import TokenBatch
from interp.tokens import Tokenization

__all__ = ["END", "Place", "locate", "resolve_columns"]

#: The last real token, where the answer is predicted. Every prompt has it.
END = "END"

#: A word that occurs once, a position, or a character span ``(start, end)``.
Place = str | int | tuple[int, int]


def resolve_columns(
    position: int | str, tokens: TokenBatch, named: Mapping[str, Int[Tensor, " batch"]]
) -> Int[Tensor, " batch"]:
    """The column of a position in every prompt.

    Args:
        position: an integer among real tokens, or a name.
        tokens: the batch whose columns are asked for.
        named: the columns that the prompts define (``Prompts.positions``).

    >>> tokens = TokenBatch.of(torch.tensor([[5, 6, 7]]))
    >>> resolve_columns("END", tokens, {}), resolve_columns(1, tokens, {})
    (tensor([2]), tensor([1]))
    """
    if isinstance(position, int):
        return tokens.column(position)
    if position in named:
        return named[position]
    if position == END:
        return tokens.column(-1)
    raise PromptError(
        f"no position is called {position!r} in these prompts; the nearest are "
        f"{nearest(position, [*named, END])}. Use one of those, or an integer."
    )


def locate(
    name: str,
    place: Place | Sequence[Place] | Int[Tensor, " prompt"],
    *,
    tokens: Tokenization,
    batch: TokenBatch,
    texts: Sequence[str] | None,
    bos: bool | None = None,
) -> Int[Tensor, " prompt"]:
    """The columns of a named position that is being defined.

    Args:
        name: its name, for errors.
        place: one place for all prompts or a list with one for each. A word or
            a span stands for its last token.
        texts: the prompts' texts, None if they came as tokens.
        bos: as the texts were encoded.
    """
    places = place.tolist() if isinstance(place, Tensor) else place
    if isinstance(places, str | int | tuple):
        places = [places] * len(batch)
    if len(places) != len(batch):
        raise PromptError(
            f"position {name!r} is given for {len(places)} prompts, expected {len(batch)}. "
            "Give one place for all prompts, or a list with one for each."
        )
    found = [_position(name, one, row, tokens, texts, bos) for row, one in enumerate(places)]
    return batch.column(torch.tensor(found, device=batch.ids.device))


def _position(
    name: str,
    place: Place,
    row: int,
    tokens: Tokenization,
    texts: Sequence[str] | None,
    bos: bool | None,
) -> int:
    """One prompt's position among its real tokens."""
    if isinstance(place, int):
        return place
    if texts is None:
        raise PromptError(
            f"position {name!r} is given as {place!r}, but these prompts came as tokens. "
            "Expected an integer; give the prompts as text to find words in them."
        )
    text = texts[row]
    span = _find(name, place, row, text) if isinstance(place, str) else place
    return tokens.span_columns(text, span, bos=bos)[-1]


def _find(name: str, word: str, row: int, text: str) -> tuple[int, int]:
    """The characters of a word that must occur exactly once."""
    count = text.count(word) if word else 0
    if count != 1:
        raise PromptError(
            f"position {name!r}: {word!r} occurs {count} times in prompt {row} {text!r}, expected "
            "once. Give a longer piece of text, an integer, or a span (start, end) of characters."
        )
    start = text.index(word)
    return start, start + len(word)
