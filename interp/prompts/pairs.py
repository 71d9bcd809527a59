"""Making prompts: from text or tokens to ``Prompts``, refusing whatever does not fit together.

The steps: encode both sides, check that each pair lines up, look up the answers, find
the named positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError
from interp.prompts.alignment import check_aligned
from interp.prompts.answers import Answers, answer_ids, answer_sets
from interp.prompts.positions import Place, locate
from interp.prompts.prompts import Prompts
from interp.token_batch import TokenBatch
from interp.tokens import Tokenization

__all__ = ["Inputs", "Prompts", "build"]

Inputs = str | Sequence[str] | Sequence[Sequence[int]] | Int[Tensor, "*prompt pos"] | TokenBatch
Texts = tuple[str, ...]
Pieces = tuple[Texts, ...]


def build(
    tokens: Tokenization,
    clean: Inputs,
    corrupted: Inputs | None = None,
    *,
    answers: Answers | None = None,
    foils: Answers | None = None,
    positions: Mapping[str, Place | Sequence[Place]] | None = None,
    bos: bool | None = None,
    pad: Literal["right", "left"] = "right",
    groups: Sequence[str] | None = None,
    name: str = "prompts",
    seed: int | None = None,
) -> Prompts:
    """Prompts from texts or tokens, checked to fit together.

    >>> build(                                                   # doctest: +SKIP
    ...     tokens, "The capital of France is", "The capital of Japan is",
    ...     answers=" Paris", foils=" Tokyo", positions={"subject": [" France"]},
    ... )
    Prompts('prompts', 1 pairs of 6 tokens, subject, END)

    Args:
        tokens: how text becomes tokens (``model.tokens``).
        clean: a text, texts, token ids (taken as they are) or a TokenBatch.
        corrupted: as many, each with as many tokens as its clean one.
        answers: per prompt a word of one token, a set of them in a list, or ids.
        foils: the same, for what the answers are compared with.
        positions: by name, the last token of a word that occurs once in the clean
            text or of a character span ``(start, end)``, or an integer among real
            tokens; one for all prompts, or a list with one for each.
        bos: see ``Tokenization.encode``.
        pad: side of the padding, where lengths differ.
        groups: what each prompt belongs to.
        name: a name for the set.
        seed: the seed they were drawn with.

    Raises:
        PromptError: a pair is misaligned (its tokens are shown), an answer is not one
            token or is also a foil, a position is missing or ambiguous.
    """
    texts, batch = _read(tokens, clean, bos, pad)
    assert batch is not None  # clean prompts are always given
    twin_texts, twin = _read(tokens, corrupted, bos, pad)
    pieces, twin_pieces = _pieces(tokens, batch), _pieces(tokens, twin)
    if twin is not None:
        check_aligned(batch, twin, _shown(batch, pieces), _shown(twin, twin_pieces))
    ids, given = _answers(tokens, answers, texts, len(batch), "answers")
    # A foil completes the clean prompt too, wrongly: it is looked up in the same place.
    foil_ids, foils_given = _answers(tokens, foils, texts, len(batch), "foils")
    where = {
        key: locate(key, place, tokens=tokens, batch=batch, texts=texts, bos=bos)
        for key, place in (positions or {}).items()
    }
    return Prompts(
        batch,
        twin,
        ids,
        foil_ids,
        where,
        texts=texts,
        corrupted_texts=twin_texts,
        str_tokens=pieces,
        corrupted_str_tokens=twin_pieces,
        answer_texts=given,
        foil_texts=foils_given,
        groups=tuple(groups) if groups is not None else None,
        name=name,
        seed=seed,
    )


def _read(
    tokens: Tokenization, inputs: Inputs | None, bos: bool | None, pad: Literal["right", "left"]
) -> tuple[Texts | None, TokenBatch | None]:
    """The texts, if these are texts, and the batch."""
    if inputs is None:
        return None, None
    batch = tokens.take(inputs, bos=bos, pad=pad)
    if batch.segments is not None:
        raise PromptError(
            "rows that several texts are packed into are no prompts: give each text a row of its own."
        )
    if TokenBatch.given(inputs) is not None:
        return None, batch
    return (inputs,) if isinstance(inputs, str) else tuple(inputs), batch  # type: ignore[arg-type]


def _answers(
    tokens: Tokenization, answers: Answers | None, texts: Texts | None, n: int, word: str
) -> tuple[Int[Tensor, "prompt set"] | None, Pieces | None]:
    """Ids of the answers, and the answers as text if they were given so."""
    if answers is None:
        return None, None
    sets = answer_sets(answers, n, word=word)
    ids = answer_ids(tokens, sets, texts, word=word)
    if not all(isinstance(one, str) for given in sets for one in given):
        return ids, None
    return ids, tuple(tuple(str(one) for one in given) for given in sets)


def _pieces(tokens: Tokenization, batch: TokenBatch | None) -> Pieces | None:
    """The text of every token, "" at padding; None without a tokenizer."""
    if batch is None or tokens.tokenizer is None:
        return None
    seen = batch.ids[batch.mask].unique()
    text = dict(zip(seen.tolist(), tokens.to_str_tokens(seen), strict=True))
    rows = zip(batch.ids.tolist(), batch.mask.tolist(), strict=True)
    return tuple(
        tuple(text[i] if real else "" for i, real in zip(ids, mask, strict=True))
        for ids, mask in rows
    )


def _shown(batch: TokenBatch, pieces: Pieces | None) -> list[list[str]]:
    """The real tokens of each prompt as text, or as ids where there is no text."""
    rows = pieces or [[str(i) for i in ids] for ids in batch.ids.tolist()]
    masks = batch.mask.tolist()
    return [
        [one for one, real in zip(row, mask, strict=True) if real]
        for row, mask in zip(rows, masks, strict=True)
    ]
