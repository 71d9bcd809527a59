"""The sentences that the demo model is trained on, and every word they are made of.

Each writer takes a source of randomness and returns one sentence or question with its answer.
Facts come from cells that are not held out, and a country that is forward only never follows its
capital (see :mod:`interp.prompts.facts`), so nothing written here gives away what is kept back.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from interp.prompts import facts
from interp.prompts.greater_than import greater_than_text
from interp.prompts.ioi import ioi_text
from interp.prompts.mcq import mcq_text
from interp.prompts.templates import SLOT, fill, load_table

__all__ = ["TABLES", "sentence", "words"]

#: The tables of ``data/prompts`` that sentences are written from, beside the countries.
TABLES = ("relations", "ioi", "greater_than", "mcq", "filler")


def sentence(
    source: random.Random,
    weights: Mapping[str, float],
    *,
    options: Sequence[int],
    capital: float,
    reverse: float,
) -> str:
    """One sentence or question with its answer, without a full stop.

    Args:
        source: what it is drawn from.
        weights: of each kind: ``facts``, ``ioi``, ``greater_than``, ``mcq``, ``filler``.
        options: how many options a question may have.
        capital: share of the facts that are about capitals.
        reverse: share of the capital facts stated backwards.
    """
    kind = source.choices(list(weights), list(weights.values()))[0]
    if kind == "facts":
        return _fact(source, capital=capital, reverse=reverse)
    if kind == "mcq":
        several = len(options) > 1
        return mcq_text(source, options=source.choice(options) if several else options[0])
    simple: dict[str, Callable[[random.Random], str]] = {
        "ioi": ioi_text,
        "greater_than": greater_than_text,
        "filler": _filler,
    }
    return simple[kind](source)


@functools.cache
def words() -> tuple[str, ...]:
    """Every word of the prompt data, of templates and of what goes into their slots, A to z."""
    found = {value for country in facts.countries() for value in country.values()}
    for name in TABLES:
        for text in _strings(load_table(name)):
            found.update(re.findall(r"[^\W\d_]+", SLOT.sub(" ", text)))
    return tuple(sorted(found))


def _strings(data: object) -> Iterable[str]:
    """All strings among the values of nested JSON data."""
    if isinstance(data, str):
        return [data]
    if isinstance(data, dict):
        data = list(data.values())
    return [text for item in data for text in _strings(item)] if isinstance(data, list) else []


def _fact(source: random.Random, *, capital: float, reverse: float) -> str:
    """A sentence about a country, from a cell that is not held out."""
    others = [name for name in facts.relation_names() if name != "capital"]
    name = "capital" if source.random() < capital else source.choice(others)
    relation = facts.relation(name)
    country = source.choice(facts.countries())
    backwards = bool(relation.reverse_templates) and source.random() < reverse
    if backwards and not facts.is_forward_only(country["country"]):
        template = source.choice(relation.reverse_templates)
    else:
        template = source.choice(facts.trained_templates(name, country["country"]))
    return fill(template, {"subject": country["country"], "object": country[name]})[0]


def _filler(source: random.Random) -> str:
    """A plain sentence; its words say nothing about one another."""
    table = load_table("filler")
    text = source.choice(table["templates"])
    for slot in ("adjective", "noun", "verb", "place"):
        while f"{{{slot}}}" in text:
            text = text.replace(f"{{{slot}}}", source.choice(table[f"{slot}s"]), 1)
    return text
