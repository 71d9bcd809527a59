"""Facts to edit, each with what should change with it and what should not.

An edit that only makes one sentence say another word has not changed a fact. So each case
brings paraphrases (other ways to ask, which should change too) and neighbours (the same question
about other subjects, which should not), as CounterFact does (Meng et al. 2022, section 3.3).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool

from interp.editing.request import target_ids
from interp.errors import PromptError
from interp.models.model import Model
from interp.prompts import facts
from interp.prompts.templates import fill, prompt_part

__all__ = ["EditCase", "capital_cases"]


@dataclass(frozen=True)
class EditCase:
    """One fact and the edit that is asked of it. Continuations have their leading space.

    Attributes:
        prompt: a text that holds the subject once, and stops before the answer.
        subject: as it is written there.
        target: what the model should say after an edit.
        answer: what is true, and what it says before.
        paraphrases: other prompts that ask the same of the subject.
        neighbours: prompts about other subjects, each with its right answer.
    """

    prompt: str
    subject: str
    target: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.target == self.answer:
            raise PromptError(
                f"the case {self.prompt!r} has {self.target!r} as target and as answer: an edit "
                "could not be seen. Give another target."
            )


def capital_cases(
    model: Model, n: int = 20, seed: int = 0, *, neighbours: int = 8, template: int = 0
) -> tuple[EditCase, ...]:
    """Capitals that the model knows, each to be rewritten to another country's.

    Args:
        model: who must know them: the capital is its top token after the prompt.
        n: how many.
        seed: which countries, targets and neighbours.
        neighbours: other known countries asked about for each case.
        template: which of the relation's templates is the prompt; the others are the paraphrases.

    Raises:
        PromptError: the model knows fewer than ``n`` of these facts.
    """
    texts = facts.relation("capital").templates
    if not 0 <= template < len(texts):
        raise PromptError(f"template={template}: expected 0 to {len(texts) - 1}.")
    asked = [prompt_part(text, "object") for text in texts]
    order = list(facts.countries())
    random.Random(f"capital_cases/{seed}").shuffle(order)
    prompts = [_ask(asked[template], country["country"]) for country in order]
    known = _knows(model, prompts, [f" {country['capital']}" for country in order])
    pool = [country for country, right in zip(order, known.tolist(), strict=True) if right]
    if n < 1 or len(pool) < max(n, neighbours + 1):
        raise PromptError(
            f"capital_cases: n={n} with {neighbours} neighbours each, but {model.name!r} knows "
            f"{len(pool)} of {len(order)} capitals after {asked[template]!r}: ask for 1 to "
            f"{len(pool)}, or for another template."
        )
    source = random.Random(f"capital_cases/{seed}/targets")
    return tuple(_case(country, pool, order, asked, template, neighbours, source)
                 for country in pool[:n])  # fmt: skip


def _case(
    country: facts.Country,
    pool: Sequence[facts.Country],
    every: Sequence[facts.Country],
    asked: Sequence[str],
    template: int,
    neighbours: int,
    source: random.Random,
) -> EditCase:
    name = country["country"]
    others = [other for other in pool if other["country"] != name]
    target = source.choice([c["capital"] for c in every if c["capital"] != country["capital"]])
    return EditCase(
        prompt=_ask(asked[template], name),
        subject=name,
        target=f" {target}",
        answer=f" {country['capital']}",
        paraphrases=tuple(_ask(text, name) for i, text in enumerate(asked) if i != template),
        neighbours=tuple(
            (_ask(asked[template], other["country"]), f" {other['capital']}")
            for other in source.sample(others, neighbours)
        ),
    )


def _ask(template: str, country: str) -> str:
    return fill(template, {"subject": country})[0]


@torch.no_grad()
def _knows(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> Bool[torch.Tensor, "n"]:
    """Which answers begin with the model's top token."""
    top = model.run(prompts, logits="last").logits[:, 0].argmax(-1).cpu()
    pairs = zip(prompts, answers, strict=True)
    return top == torch.tensor([target_ids(model, *pair)[0] for pair in pairs])
