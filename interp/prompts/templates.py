"""Templates: sentences with named gaps, which remember where each gap landed.

A template is text with slots in braces, ``"The capital of {subject} is {object}"``. All of them
live as data in ``data/prompts``; no template text stands in code. Filling one returns the text
and the character span of each slot, so that any tokenizer can find "the subject" afterwards.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from interp.errors import PromptError, nearest
from interp.paths import data_dir

__all__ = ["Span", "fill", "load_table", "prompt_part"]

#: Where a word stands in a text: ``text[start:end]``.
Span = tuple[int, int]

SLOT = re.compile(r"\{(\w+)\}")


@functools.cache
def load_table(name: str) -> Mapping[str, Any]:
    """The prompt data ``data/prompts/<name>.json``, read once."""
    folder = data_dir() / "prompts"
    path = folder / f"{name}.json"
    if not path.is_file():
        known = nearest(name, sorted(p.stem for p in folder.glob("*.json")))
        raise PromptError(f"no prompt data named {name!r} in {folder}; nearest: {known}")
    return json.loads(path.read_text(encoding="utf-8"))


def fill(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
    """Put ``values`` into the slots of ``template``; also say where each one landed.

    A slot that stands twice has its second span under ``name2``, and so on.

    >>> fill("The capital of {subject} is", {"subject": "Peru"})
    ('The capital of Peru is', {'subject': (15, 19)})
    """
    text, end = "", 0
    spans: dict[str, Span] = {}
    for slot in SLOT.finditer(template):
        name = slot.group(1)
        if name not in values:
            raise PromptError(
                f"template {template!r} has a slot {{{name}}} but got values only for "
                f"{sorted(values)}; give one for every slot"
            )
        text += template[end : slot.start()]
        earlier = len([known for known in spans if known.rstrip("0123456789") == name])
        spans[f"{name}{earlier + 1}" if earlier else name] = (
            len(text),
            len(text) + len(values[name]),
        )
        text += values[name]
        end = slot.end()
    return text + template[end:], spans


def prompt_part(template: str, answer_slot: str) -> str:
    """The part of ``template`` before its answer, without the space that separates them.

    >>> prompt_part("The capital of {subject} is {object}", "object")
    'The capital of {subject} is'
    """
    ending = f"{{{answer_slot}}}"
    if not template.endswith(ending):
        raise PromptError(
            f"template {template!r} must end in its answer {ending}, so that the prompt can stop "
            "just before it; move the answer to the end"
        )
    return template.removesuffix(ending).rstrip(" ")
