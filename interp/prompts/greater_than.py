"""Greater-than: "The war lasted from the year 1732 to the year 17".

Right answers are the two-digit years above the start (Hanna et al. 2023, arXiv:2305.00586). As in
the paper the corrupted prompt starts in the year 01, after which nearly every year is right, and
the score is the probability of all right years minus that of all wrong ones.
"""

from __future__ import annotations

import random

from interp.prompts.example import Example
from interp.prompts.templates import fill, load_table, prompt_part

__all__ = ["greater_than", "greater_than_text"]

YEARS = tuple(f"{year:02d}" for year in range(100))


def greater_than(n: int, seed: int) -> list[Example]:
    """``n`` prompts that are continued by any later year of the century.

    ``answers`` are the two digits of every later year, ``foils`` those of all the others, neither
    with a space before it; ``answer`` and ``foil`` are the first later year and the start itself.

    Spans: ``noun``, ``century`` (its first mention), ``YY`` (the two digits of the start) and
    ``century2``.
    """
    source = random.Random(f"greater_than/{seed}")
    return [_example(source) for _ in range(n)]


def greater_than_text(source: random.Random) -> str:
    """One sentence with its answer, to train on."""
    index, values = _draw(source)
    later = YEARS[int(values["start"]) + 1 :]
    template = load_table("greater_than")["templates"][index]
    return fill(template, {**values, "end": source.choice(later)})[0]


def _example(source: random.Random) -> Example:
    """One prompt and the same one from the year 01."""
    table = load_table("greater_than")
    index, values = _draw(source)
    start = int(values["start"])
    template = prompt_part(table["templates"][index], "end")
    clean, spans = fill(template, values)
    early = f"{table['corrupted_start']:02d}"
    corrupted, corrupted_spans = fill(template, {**values, "start": early})
    named = {("YY" if name == "start" else name): span for name, span in spans.items()}
    also = {("YY" if name == "start" else name): span for name, span in corrupted_spans.items()}
    return Example(
        clean=clean,
        corrupted=corrupted,
        answer=YEARS[start + 1],
        foil=YEARS[start],
        spans=named,
        corrupted_spans=also,
        group=f"greater_than/{index}",
        answers=YEARS[start + 1 :],
        foils=YEARS[: start + 1],
    )


def _draw(source: random.Random) -> tuple[int, dict[str, str]]:
    """A template, and what goes into its slots but for the end."""
    table = load_table("greater_than")
    start = source.randint(table["first_start"], table["last_start"])
    return source.randrange(len(table["templates"])), {
        "noun": source.choice(table["nouns"]),
        "century": source.choice(table["centuries"]),
        "start": YEARS[start],
    }
