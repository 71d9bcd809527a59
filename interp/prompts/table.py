"""Prompts as a table to read: tokens of a pair one under the other, positions by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.prompts.alignment import side_by_side
from interp.token_batch import TokenBatch

if TYPE_CHECKING:
    from interp.prompts.prompts import Prompts

__all__ = ["table"]

MOST_ANSWERS = 4


def table(prompts: Prompts, n: int) -> str:
    """A heading and the first ``n`` prompts; tokens as ids where there is no tokenizer."""
    rows = [_entry(prompts, row) for row in range(min(n, len(prompts)))]
    rest = len(prompts) - len(rows)
    more = [f"… and {rest} more"] if rest > 0 else []
    return "\n".join([repr(prompts), *rows, *more])


def _entry(prompts: Prompts, row: int) -> str:
    clean = _tokens(prompts.clean, prompts.str_tokens, row)
    if prompts.corrupted is None:
        lines = [side_by_side(clean, []).splitlines()[0]]
    else:
        twin = _tokens(prompts.corrupted, prompts.corrupted_str_tokens, row)
        lines = side_by_side(clean, twin).splitlines()
    answers = _set(prompts, row, "answer", "answers", "answer_texts")
    foils = _set(prompts, row, "foil", "foils", "foil_texts")
    return "\n".join([f"{row}{answers}{foils}{_where(prompts, row)}", *lines])


def _tokens(batch: TokenBatch, pieces: tuple[tuple[str, ...], ...] | None, row: int) -> list[str]:
    """One prompt's real tokens."""
    shown = pieces[row] if pieces else [str(i) for i in batch.ids[row].tolist()]
    return [one for one, real in zip(shown, batch.mask[row].tolist(), strict=True) if real]


def _set(prompts: Prompts, row: int, label: str, ids: str, texts: str) -> str:
    """ " · answer ' Paris'", or nothing if there is none."""
    if getattr(prompts, ids) is None:
        return ""
    given = getattr(prompts, texts)
    tokens = getattr(prompts, ids)[row].tolist()
    shown = [repr(one) for one in given[row]] if given else [str(i) for i in tokens if i >= 0]
    more = f" and {len(shown) - MOST_ANSWERS} more" if len(shown) > MOST_ANSWERS else ""
    return f" · {label} {' '.join(shown[:MOST_ANSWERS])}{more}"


def _where(prompts: Prompts, row: int) -> str:
    """Named positions of one prompt, counted among its real tokens."""
    first = int(prompts.clean.first[row])
    names = [f"{name}@{int(where[row]) - first}" for name, where in prompts.positions.items()]
    return f" · {' '.join(names)}"
