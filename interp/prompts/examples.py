"""The task examples, by name: what a circuit hunter asks a model.

    capitals, relation   a fact about a country       "The capital of France is"
    ioi                  who is given the object      "When Mary and John ..., John gave a ... to"
    greater_than         a later year                 "The war lasted from the year 1732 to ..."
    mcq                  the right option's letter    "Question: What is the capital of ...? A: ..."

Each makes a list of :class:`Example` from a seed; none of them knows about tokens or models.
"""

from __future__ import annotations

import random

from interp.errors import PromptError
from interp.prompts import facts
from interp.prompts.example import Example
from interp.prompts.greater_than import greater_than
from interp.prompts.ioi import ioi
from interp.prompts.mcq import mcq
from interp.prompts.templates import fill, prompt_part

__all__ = ["Example", "capitals", "greater_than", "ioi", "mcq", "relation"]


def capitals(n: int | None, seed: int, *, split: str = "all") -> list[Example]:
    """``n`` prompts that ask for a country's capital; see :func:`relation`."""
    return relation("capital", n, seed, split=split)


def relation(name: str, n: int | None, seed: int, *, split: str = "all") -> list[Example]:
    """``n`` prompts that ask for one fact about a country.

    The corrupted prompt asks the same about another country with another answer.

    Args:
        name: ``"capital"``, ``"language"``, ``"continent"`` or ``"currency"``.
        n: how many, without repeating a template x country cell; None: every cell.
        seed: which ones, in which order, and with which other country.
        split: ``"trained"`` cells, the ``"heldout"`` ones that the demo model never read, or
            ``"all"``.

    Spans: ``subject``.
    """
    source = random.Random(f"{name}/{split}/{seed}")
    pool = facts.cells(name, split)
    if n is not None and n > len(pool):
        raise PromptError(
            f"{name} has {len(pool)} cells in the split {split!r}, got n={n}; ask for fewer, or "
            "for split='all'"
        )
    drawn = source.sample(pool, len(pool) if n is None else n)
    return [_example(name, index, country, source) for index, country in drawn]


def _example(name: str, index: int, country: facts.Country, source: random.Random) -> Example:
    """One cell, against another country of which something else is true."""
    others = [other for other in facts.countries() if other[name] != country[name]]
    other = source.choice(others)
    template = prompt_part(facts.relation(name).templates[index], "object")
    clean, spans = fill(template, {"subject": country["country"]})
    corrupted, corrupted_spans = fill(template, {"subject": other["country"]})
    return Example(
        clean=clean,
        corrupted=corrupted,
        answer=f" {country[name]}",
        foil=f" {other[name]}",
        spans=spans,
        corrupted_spans=corrupted_spans,
        group=f"{name}/{index}",
    )
