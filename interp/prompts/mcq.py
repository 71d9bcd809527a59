"""Multiple choice: a question about a country with lettered options, answered by a letter.

The right letter is drawn evenly, so nothing is won by preferring one of them. Lieberum et al.
(2023, arXiv:2307.09458) study how a model picks the right letter once it knows the answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from interp.errors import PromptError
from interp.prompts import facts
from interp.prompts.example import Example
from interp.prompts.templates import Span, fill, load_table, prompt_part

__all__ = ["mcq", "mcq_text"]


def mcq(
    n: int,
    seed: int,
    *,
    options: int | Sequence[int] = 4,
    first: float | None = None,
    labels: Sequence[str] | None = None,
) -> list[Example]:
    """``n`` questions whose corrupted twin asks for another one of the same options.

    Args:
        n: how many.
        seed: which ones.
        options: how many options a question has; several numbers are used in turn.
        first: the chance that the first option is right; None: the same for all.
        labels: words to label options with in the place of A, B, C, D; each question draws its
            own, in an order of its own. The letters themselves here are shuffled letters.

    Spans: ``subject``; ``A``, ``B``, ... (the first, second, ... label, whatever it is) and
    ``option_A``, ... (what they stand for); ``correct`` and ``correct_option``, those of the right
    answer; ``foil`` and ``foil_option``, those of the corrupted prompt's right answer.
    """
    counts = (options,) if isinstance(options, int) else tuple(options)
    most = len(load_table("mcq")["letters"])
    if not counts or not all(2 <= count <= most for count in counts):
        raise PromptError(f"a question has 2 to {most} options, got {options!r}")
    if first is not None and not 0 <= first <= 1:
        raise PromptError(f"first={first!r}; expected a share of the questions, from 0 to 1.")
    if isinstance(labels, str) or (labels is not None and len({*labels}) < max(counts)):
        raise PromptError(
            f"labels={labels!r}; expected a list of at least {max(counts)} different words, one for each "
            "option, such as ('E', 'F', 'G', 'H')."
        )
    source = random.Random(f"mcq/{seed}")
    return [
        _example(source, counts[index % len(counts)], first, labels) for index in range(n)
    ]  # fmt: skip


def mcq_text(source: random.Random, *, options: int) -> str:
    """One question with its answer, to train on."""
    table, choices = load_table("mcq"), source.sample(facts.countries(), options)
    correct = source.randrange(options)
    template = source.choice(table["templates"])
    listed, _ = _options(choices, table["letters"])
    values = {"relation": table["relation"], "subject": choices[correct]["country"]}
    answer = table["letters"][correct]
    return fill(template, {**values, "options": listed, "answer": answer})[0]


def _example(
    source: random.Random, options: int, first: float | None, labels: Sequence[str] | None
) -> Example:
    """One question and its twin about another of the countries behind the options."""
    table, choices = load_table("mcq"), source.sample(facts.countries(), options)
    correct, other = source.sample(range(options), 2)
    index = source.randrange(len(table["templates"]))
    if first is not None:
        correct = 0 if source.random() < first else source.randrange(1, options)
        other = source.choice([place for place in range(options) if place != correct])
    letters = table["letters"]
    words = letters if labels is None else source.sample(list(dict.fromkeys(labels)), options)
    clean, spans = _question(index, choices, correct, words)
    corrupted, corrupted_spans = _question(index, choices, other, words)
    return Example(
        clean=clean,
        corrupted=corrupted,
        answer=f" {words[correct]}",
        foil=f" {words[other]}",
        spans=_with_roles(spans, letters[correct], letters[other]),
        corrupted_spans=_with_roles(corrupted_spans, letters[correct], letters[other]),
        group=f"mcq/{index}/{options}",
    )


def _question(
    index: int, choices: Sequence[facts.Country], asked: int, words: Sequence[str]
) -> tuple[str, dict[str, Span]]:
    """The question about one of the countries, with the spans of its parts."""
    table = load_table("mcq")
    listed, inner = _options(choices, words)
    values = {"relation": table["relation"], "subject": choices[asked]["country"]}
    template = prompt_part(table["templates"][index], "answer")
    text, spans = fill(template, {**values, "options": listed})
    offset, _ = spans.pop("options")
    return text, spans | {name: (a + offset, b + offset) for name, (a, b) in inner.items()}


def _options(choices: Sequence[facts.Country], words: Sequence[str]) -> tuple[str, dict[str, Span]]:
    """ "A: Rome B: Paris" with the spans of the labels, under letters, and of what they stand for."""
    table = load_table("mcq")
    text, spans = "", {}
    for letter, word, country in zip(table["letters"], words, choices, strict=False):
        offset = len(text) + bool(text)
        values = {"letter": word, "object": country[table["relation"]]}
        part, (at, option) = (
            fill(table["option"], values)[0],
            fill(table["option"], values)[1].values(),
        )
        text = f"{text} {part}" if text else part
        spans[letter] = (at[0] + offset, at[1] + offset)
        spans[f"option_{letter}"] = (option[0] + offset, option[1] + offset)
    return text, spans


def _with_roles(spans: Mapping[str, Span], correct: str, foil: str) -> dict[str, Span]:
    """Name the right and the other answer, by what they are in the clean prompt."""
    return {
        **spans,
        "correct": spans[correct],
        "correct_option": spans[f"option_{correct}"],
        "foil": spans[foil],
        "foil_option": spans[f"option_{foil}"],
    }
