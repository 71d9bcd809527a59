"""The demo corpus: rows of text and rows of repeated random tokens, written by rules.

A row is ``<bos>`` and then as many documents as fit into the context. Most rows hold sentences:
facts, two people and a gift, spans of years, questions with lettered options, filler. The others
hold random spans of the vocabulary, each written two or three times over: only copying predicts the
repeats, and it is what makes induction heads form. The first time through a span nothing
could predict it, so it does not count in the loss.

The rows of step ``t`` are a function of the seed and ``t`` alone, so a run that was interrupted
goes on with exactly the rows it would have read.
"""

from __future__ import annotations

import random

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.corpora.sentences import sentence
from interp.demo.recipe import Mixture, Recipe
from interp.demo.vocabulary import word_ids

__all__ = ["IGNORED", "batch", "document", "repeated_rows"]

#: Label of a token that does not count in the loss.
IGNORED = -100


def batch(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, *, seed: int, step: int
) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """The token rows of one training step, and their labels (the same, or ``IGNORED``)."""
    source = random.Random(f"{seed}/{step}")
    mixture = recipe.mixture_at(step)
    kinds = [source.random() < mixture.repeats for _ in range(recipe.rows)]
    texts = [_text_row(mixture, source, recipe.context) for repeats in kinds if not repeats]
    encoded = (found.ids for found in tokenizer.backend_tokenizer.encode_batch(texts))
    words = word_ids(tokenizer)
    rows, labels = [], []
    for repeats in kinds:
        if repeats:
            row, label = _repeat_row(recipe, source, tokenizer.bos_token_id, words)
        else:
            row = label = next(encoded)[: recipe.context]
        rows.append(row)
        labels.append(label)
    return torch.tensor(rows), torch.tensor(labels)


def document(mixture: Mixture, source: random.Random) -> str:
    """One sentence or question with its answer, of a kind drawn from the mixture."""
    return sentence(
        source,
        mixture.documents,
        options=mixture.options,
        capital=mixture.capital,
        reverse=mixture.reverse,
    )


def repeated_rows(
    tokenizer: PreTrainedTokenizerFast, *, rows: int, period: int, seed: int
) -> Int[Tensor, "row pos"]:
    """Rows of ``<bos>`` and ``period`` random tokens written twice, to measure copying on."""
    source = random.Random(f"repeated/{seed}")
    words = word_ids(tokenizer)
    spans = [source.choices(words, k=period) for _ in range(rows)]
    return torch.tensor([[tokenizer.bos_token_id, *span, *span] for span in spans])


def _text_row(mixture: Mixture, source: random.Random, context: int) -> str:
    """Documents with a full stop after each, until they fill the context."""
    row: list[str] = []
    length = 0
    while length < context:
        row.append(document(mixture, source) + ".")
        length += row[-1].count(" ") + 1
    return " ".join(row)


def _repeat_row(
    recipe: Recipe, source: random.Random, bos: int, words: list[int]
) -> tuple[list[int], list[int]]:
    """Random spans, each two or three times in a row; only the repeats count in the loss."""
    row, labels = [bos], [IGNORED]
    while len(row) < recipe.context:
        span = source.choices(words, k=source.randint(recipe.shortest, recipe.longest))
        copies = source.randint(1, 2)
        row += span * (1 + copies)
        labels += [IGNORED] * len(span) + span * copies
    return row[: recipe.context], labels[: recipe.context]
