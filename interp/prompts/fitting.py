"""From text-level examples to prompts that suit one tokenizer.

The same example may be a fair pair under one tokenizer and a useless one under
another: a capital of two tokens, a country longer than its twin. So examples are
drawn in a fixed order, those that fit are kept, and if too few do, the error says
how many and why. Nothing is shortened to make it fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from interp.errors import PromptError
from interp.prompts.example import Example
from interp.prompts.pairs import build
from interp.prompts.prompts import Prompts
from interp.tokens import Tokenization

__all__ = ["fit"]

#: How many examples are looked at for each one asked for, before giving up.
PATIENCE = 32


@dataclass(frozen=True)
class Fitting:
    """An example that fits, and where its named words end."""

    example: Example
    positions: Mapping[str, int]


def fit(
    tokens: Tokenization,
    draw: Callable[[int], Sequence[Example]],
    n: int,
    *,
    name: str,
    seed: int,
    pad: Literal["right", "left"] = "right",
) -> Prompts:
    """The first ``n`` different examples that fit this tokenizer, as prompts.

    Args:
        draw: makes that many examples, or all there are; more examples begin with
            the same ones.
        n: how many prompts.
        name: the task's name.
        seed: the seed that ``draw`` uses, to be recorded.
        pad: side of the padding.

    Raises:
        PromptError: fewer than ``n`` fit; says how many of how many, and why not.
    """
    if n < 1:
        raise PromptError(f"{name}: n={n}, expected at least 1 prompt. Try n=64.")
    kept: list[Fitting] = []
    reasons: Counter[str] = Counter()
    count, seen = n, 0
    while len(kept) < n:
        examples = draw(count)
        for example in examples[seen:]:
            found = _try(tokens, example, kept)
            if isinstance(found, Fitting):
                kept.append(found)
            else:
                reasons[found] += 1
        exhausted, seen = len(examples) < count, len(examples)
        if len(kept) < n and (exhausted or count >= PATIENCE * n):
            raise _too_few(name, n, len(kept), seen, reasons)
        count *= 2
    return _prompts(tokens, kept[:n], name, seed, pad)


def _try(tokens: Tokenization, example: Example, kept: Sequence[Fitting]) -> Fitting | str:
    """The example with its positions, or the reason why it does not fit."""
    if any(example.clean == k.example.clean for k in kept):
        return "repeat an earlier prompt"
    sides = (example.clean, example.spans), (example.corrupted, example.corrupted_spans)
    try:
        clean, twin = (tokens.encode(text).n_real.item() for text, _ in sides)
    except PromptError:
        return "have a word that the tokenizer does not know, or are longer than the context"
    if clean != twin:
        return "have clean and corrupted prompts of different token lengths"
    here, there = (_positions(tokens, text, spans) for text, spans in sides)
    if any(here[name] != there[name] for name in here.keys() & there.keys()):
        return "have the same word at different tokens of the two prompts"
    try:
        words = [*example.answers, *example.foils]
        ids = tokens.to_single_tokens(words, after=example.clean)
    except PromptError:
        return "have an answer or foil that is not one token"
    if set(ids[: len(example.answers)]) & set(ids[len(example.answers) :]):
        return "have an answer and a foil that are the same token"
    return Fitting(example, here)


def _positions(
    tokens: Tokenization, text: str, spans: Mapping[str, tuple[int, int]]
) -> dict[str, int]:
    """The last token of every span; of the subject, which may have several, the first too."""
    columns = {name: tokens.span_columns(text, span) for name, span in spans.items()}
    found = {name: where[-1] for name, where in columns.items()}
    if "subject" in columns:
        found |= {"subject_first": columns["subject"][0], "subject_last": columns["subject"][-1]}
    return found


def _prompts(
    tokens: Tokenization,
    kept: Sequence[Fitting],
    name: str,
    seed: int,
    pad: Literal["right", "left"],
) -> Prompts:
    """The kept examples with the positions that all of them have."""
    examples = [one.example for one in kept]
    shared = [key for key in kept[0].positions if all(key in one.positions for one in kept)]
    return build(
        tokens,
        [one.clean for one in examples],
        [one.corrupted for one in examples],
        answers=[one.answers for one in examples],
        foils=[one.foils for one in examples],
        positions={key: [one.positions[key] for one in kept] for key in shared},
        pad=pad,
        groups=[one.group for one in examples],
        name=name,
        seed=seed,
    )


def _too_few(name: str, n: int, kept: int, seen: int, reasons: Counter[str]) -> PromptError:
    why = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    ask = f"Ask for n={kept} or fewer, or use" if kept else "Use"
    return PromptError(
        f"{name}: {kept} of {seen} examples fit this tokenizer, expected n={n}. "
        f"Of the others {why or 'there are none'}. {ask} another task or model."
    )
