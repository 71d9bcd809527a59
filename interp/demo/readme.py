"""The demo model's README, written from its datasheet so that no number is typed by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from interp.prompts import facts

__all__ = ["render"]

_TEMPLATE = Path(__file__).parent / "readme.md.j2"
#: What a row of the table shows: measures of the datasheet.
_ROWS = {
    "capitals, trained / held-out cells": ("capital_trained", "capital_heldout"),
    "languages, trained / held-out cells": ("language_trained", "language_heldout"),
    "continents, trained / held-out cells": ("continent_trained", "continent_heldout"),
    "currencies, trained / held-out cells": ("currency_trained", "currency_heldout"),
    "IOI, accuracy / mean logit difference": ("ioi", "ioi_logit_diff"),
    "greater-than, probability difference": ("greater_than",),
    "multiple choice, 2 / 4 options": ("mcq_2", "mcq_4"),
    "second copy of random tokens": ("repeat",),
    "best induction / previous-token head": ("best_induction", "best_previous_token"),
}


def render(sheet: dict[str, Any]) -> str:
    """The README of a checkpoint, as Markdown, from its datasheet."""
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    recipe = sheet["recipe"]
    return template.render(
        title="The demo model" if recipe["name"] == "full" else "A small demo model",
        sheet=SimpleNamespace(**sheet),
        recipe=recipe,
        millions=f"{sheet['parameters'] / 1e6:.1f}",
        countries=len(facts.countries()),
        rows={
            name: tuple(_cells(sheet[side], keys) for side in ("measured", "untrained"))
            for name, keys in _ROWS.items()
        },
        kept=[f"step-{step:04d}" for step in recipe["keep"]],
    )


def _cells(table: dict[str, float], keys: tuple[str, ...]) -> str:
    return " / ".join(f"{table[key]:.3f}" for key in keys)
