"""Facts: real countries and the ways of stating what is true of them.

A *cell* is one template with one country, "The capital city of Peru is named Lima". About one
cell in eight is **held out**: the demo model never reads it in training, so a right answer there
shows that it stores the fact and not the sentence. About one country in four is **forward
only**: its capital is never named before the country, which is the control that work on the
reversal curse needs. Both rules are a hash of the names, so they never move.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from interp.errors import PromptError, nearest
from interp.paths import data_dir
from interp.prompts.templates import load_table

__all__ = [
    "Relation",
    "cells",
    "countries",
    "is_forward_only",
    "is_heldout",
    "relation",
    "relation_names",
    "trained_templates",
]

HELDOUT_ONE_IN = 8
FORWARD_ONLY_ONE_IN = 4

#: One country with its facts: the columns of ``countries.csv``.
Country = Mapping[str, str]


@dataclass(frozen=True)
class Relation:
    """One thing that can be said of a country, and the sentences that say it.

    Attributes:
        name: the column of the country table that holds the answer.
        templates: sentences with ``{subject}`` that end in ``{object}``.
        reverse_templates: sentences with ``{object}`` that end in ``{subject}``.
    """

    name: str
    templates: tuple[str, ...]
    reverse_templates: tuple[str, ...] = ()


@functools.cache
def countries() -> tuple[Country, ...]:
    """Every country of the table, in alphabetical order."""
    path = data_dir() / "prompts" / "countries.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def relation_names() -> list[str]:
    """The relations that have templates."""
    return list(load_table("relations"))


@functools.cache
def relation(name: str) -> Relation:
    """The relation called ``name``."""
    table = load_table("relations")
    if name not in table:
        raise PromptError(f"no relation named {name!r}; nearest: {nearest(name, table)}")
    entry = table[name]
    return Relation(name, tuple(entry["templates"]), tuple(entry.get("reverse_templates", ())))


def is_heldout(name: str, template: int, country: str) -> bool:
    """Is the cell (template index, country) of this relation kept out of training?"""
    return _draw(f"{name}/{template}/{country}", HELDOUT_ONE_IN)


def is_forward_only(country: str) -> bool:
    """Is this country's capital never stated before the country itself?"""
    return _draw(f"forward-only/{country}", FORWARD_ONLY_ONE_IN)


def cells(name: str, split: str = "all") -> list[tuple[int, Country]]:
    """The (template index, country) cells of a relation: all, trained or held out."""
    splits = ("all", "trained", "heldout")
    if split not in splits:
        raise PromptError(f"split must be one of {splits}, got {split!r}")
    return [
        (index, country)
        for index in range(len(relation(name).templates))
        for country in countries()
        if split == "all" or is_heldout(name, index, country["country"]) == (split == "heldout")
    ]


def _draw(key: str, one_in: int) -> bool:
    """True for about one key in ``one_in``, the same keys on every machine."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") % one_in == 0


@functools.cache
def trained_templates(name: str, country: str) -> list[str]:
    """The templates of a relation that state it of this country in training."""
    templates = relation(name).templates
    kept = [text for index, text in enumerate(templates) if not is_heldout(name, index, country)]
    if not kept:
        raise PromptError(f"every {name} template is held out for {country!r}; add a template")
    return kept
