"""Indirect object identification: "When Mary and John went to the store, John gave a drink to".

The right answer is the name that is *not* repeated (Wang et al. 2022, arXiv:2211.00593). The
subject (S) is named twice, the indirect object (IO) once; half the prompts name the indirect
object first (ABBA), half the subject (BABA).
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from interp.errors import PromptError
from interp.prompts.example import Example
from interp.prompts.templates import Span, fill, load_table, prompt_part

__all__ = ["ioi", "ioi_text"]

CORRUPTIONS = ("swap", "abc")


def ioi(n: int, seed: int, *, corruption: str = "swap") -> list[Example]:
    """``n`` prompts in which the answer is the name not repeated.

    Args:
        n: how many.
        seed: which ones.
        corruption: what replaces the second mention of the subject. ``"swap"``: the indirect
            object, so that the right answer becomes the subject. ``"abc"``: a third name, so
            that neither of the first two is told apart.

    Spans: ``IO``, ``S1``, ``S2``, ``place`` and ``object``.
    """
    if corruption not in CORRUPTIONS:
        raise PromptError(f"corruption must be one of {CORRUPTIONS}, got {corruption!r}")
    source = random.Random(f"ioi/{seed}")
    return [_example(source, corruption) for _ in range(n)]


def ioi_text(source: random.Random) -> str:
    """One sentence with its answer, to train on."""
    index, _, values = _draw(source)
    return fill(load_table("ioi")["templates"][index], values)[0]


def _example(source: random.Random, corruption: str) -> Example:
    """One prompt and its corruption."""
    index, order, values = _draw(source)
    template = prompt_part(load_table("ioi")["templates"][index], "IO")
    names = [name for name in load_table("ioi")["names"] if name not in values.values()]
    third = source.choice(names)
    other = {**values, "S": values["IO"] if corruption == "swap" else third}
    clean, spans = fill(template, values)
    corrupted, corrupted_spans = fill(template, other)
    return Example(
        clean=clean,
        corrupted=corrupted,
        answer=f" {values['IO']}",
        foil=f" {values['S']}",
        spans=_roles(spans, order),
        corrupted_spans=_roles(corrupted_spans, order),
        group=f"ioi/{index}/{order}",
    )


def _draw(source: random.Random) -> tuple[int, str, dict[str, str]]:
    """A template, an order of the two names, and what goes into the slots."""
    table = load_table("ioi")
    index = source.randrange(len(table["templates"]))
    order = source.choice(sorted(table["orders"]))
    people = dict(zip(("IO", "S"), source.sample(table["names"], 2), strict=True))
    first, second = (people[role] for role in table["orders"][order])
    place, thing = source.choice(table["places"]), source.choice(table["objects"])
    return (
        index,
        order,
        {**people, "first": first, "second": second, "place": place, "object": thing},
    )


def _roles(spans: Mapping[str, Span], order: str) -> dict[str, Span]:
    """Name the spans by role: the first two names are IO and S1 in the order's sense."""
    first, second = load_table("ioi")["orders"][order]
    named = {"S" if name == "S" else name: span for name, span in spans.items()}
    roles = {first: named.pop("first"), second: named.pop("second")}
    return {"IO": roles["IO"], "S1": roles["S"], "S2": named.pop("S"), **named}
