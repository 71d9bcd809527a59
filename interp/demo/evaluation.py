"""What a demo model can do: the table of the datasheet.

Every number is measured on prompts drawn from a seed of their own, by the model's own top token
over the whole vocabulary (not only between answer and foil).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from interp.demo.corpus import repeated_rows
from interp.discovery.scores import induction_scores, previous_token_scores
from interp.prompts import examples, facts
from interp.prompts.example import Example

__all__ = ["Evaluation", "evaluate", "head_scores"]

#: What :func:`evaluate` returns: a number for each measure, ready for JSON.
Evaluation = dict[str, float]

#: Draws prompts and random rows that no training seed shares.
EVALUATION_SEED = 1_000_003
#: Length of the repeated spans. The fastest rotary frequency turns once in 6.28 positions; 22, the
#: distance at which an induction head looks back, is half a turn off, so that a head which only
#: attends to a distance does not pass for one that matches tokens.
PERIOD = 23
BATCH = 256


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, n: int = 400
) -> Evaluation:
    """Measure every task.

    Args:
        model: a causal language model over the demo vocabulary.
        tokenizer: its tokenizer.
        n: prompts per task; facts are asked in all their cells if n is at least 400.

    Returns:
        ``<relation>_trained`` and ``_heldout``: accuracy over cells. ``ioi``: accuracy, and
        ``ioi_logit_diff``, the mean logit of the right name minus the other. ``greater_than``:
        probability of later years minus the rest. ``mcq_2``, ``mcq_4``: accuracy with two and
        four options. ``repeat``: accuracy on the second copy of random tokens.
        ``best_induction`` and ``best_previous_token``: the highest score of any head.
    """
    table: Evaluation = {}
    for name in facts.relation_names():
        for split in ("trained", "heldout"):
            cells = len(facts.cells(name, split))
            count = None if n >= 400 else min(n, cells)
            asked = examples.relation(name, count, EVALUATION_SEED, split=split)
            table[f"{name}_{split}"] = _accuracy(model, tokenizer, asked)
    table |= _ioi(model, tokenizer, examples.ioi(n, EVALUATION_SEED))
    table["greater_than"] = _year_probability(
        model, tokenizer, examples.greater_than(n, EVALUATION_SEED)
    )
    for options in (2, 4):
        asked = examples.mcq(n, EVALUATION_SEED, options=options)
        table[f"mcq_{options}"] = _accuracy(model, tokenizer, asked)
    table["repeat"] = _repeat_accuracy(model, tokenizer, rows=64)
    for kind, scores in head_scores(model, tokenizer).items():
        table[f"best_{kind}"] = scores.max().item()
    return {name: round(value, 4) for name, value in table.items()}


@torch.no_grad()
def head_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Float[Tensor, "layer head"]]:
    """Induction and previous-token score of every head, on random tokens written twice."""
    rows = repeated_rows(tokenizer, rows=32, period=PERIOD, seed=EVALUATION_SEED)
    with _eager_attention(model):
        patterns = model(rows, output_attentions=True).attentions
    return {
        "induction": torch.stack([induction_scores(p, PERIOD) for p in patterns]),
        "previous_token": torch.stack([previous_token_scores(p) for p in patterns]),
    }


@torch.no_grad()
def last_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> Float[Tensor, "prompt vocab"]:
    """The logits after each prompt.

    Prompts of one length run together, so none of them needs padding.
    """
    by_length: dict[int, list[int]] = {}
    encoded = tokenizer(list(prompts)).input_ids
    for index, ids in enumerate(encoded):
        by_length.setdefault(len(ids), []).append(index)
    found = torch.empty(len(prompts), model.config.vocab_size)
    for same in by_length.values():
        for start in range(0, len(same), BATCH):
            chosen = same[start : start + BATCH]
            rows = torch.tensor([encoded[index] for index in chosen])
            found[chosen] = model(rows, logits_to_keep=1).logits[:, -1]
    return found


def token_ids(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> Tensor:
    """The one token of each word."""
    ids = tokenizer(list(words), add_special_tokens=False).input_ids
    assert all(len(row) == 1 for row in ids), "every answer is one token of the demo vocabulary"
    return torch.tensor(ids).flatten()


def _accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Example]
) -> float:
    """Share of prompts whose top token is the answer."""
    logits = last_logits(model, tokenizer, [example.clean for example in asked])
    right = token_ids(tokenizer, [example.answer for example in asked])
    return (logits.argmax(-1) == right).float().mean().item()


def _ioi(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Example]
) -> Evaluation:
    """Accuracy, and the mean logit of the indirect object minus that of the subject."""
    logits = last_logits(model, tokenizer, [example.clean for example in asked])
    right = token_ids(tokenizer, [example.answer for example in asked])
    wrong = token_ids(tokenizer, [example.foil for example in asked])
    rows = torch.arange(len(asked))
    return {
        "ioi": (logits.argmax(-1) == right).float().mean().item(),
        "ioi_logit_diff": (logits[rows, right] - logits[rows, wrong]).mean().item(),
    }


def _year_probability(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Example]
) -> float:
    """Mean probability of the later years minus that of the others."""
    chances = last_logits(model, tokenizer, [example.clean for example in asked]).softmax(-1)
    years = sorted({year for example in asked for year in example.answers + example.foils})
    known = dict(zip(years, token_ids(tokenizer, years).tolist(), strict=True))
    gaps = [
        row[[known[year] for year in example.answers]].sum()
        - row[[known[year] for year in example.foils]].sum()
        for row, example in zip(chances, asked, strict=True)
    ]
    return torch.stack(gaps).mean().item()


@torch.no_grad()
def _repeat_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, rows: int
) -> float:
    """Share of the second copy's tokens, but for its first, that are predicted."""
    tokens = repeated_rows(tokenizer, rows=rows, period=PERIOD, seed=EVALUATION_SEED)
    guesses = model(tokens).logits[:, PERIOD + 1 : -1].argmax(-1)
    return (guesses == tokens[:, PERIOD + 2 :]).float().mean().item()


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let attention weights be read, and put the model's own attention back afterwards."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
