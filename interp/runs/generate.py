"""Edits during generation: on the prompt, and on each token that follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from interp.runs.edits import Edit, PlacedEdit, RowEdit
from interp.runs.plan import Columns, chain, edit_pairs, edited, key_of, placed
from interp.taps.anatomy import Anatomy
from interp.taps.points import Key, tapped
from interp.token_batch import TokenBatch

__all__ = ["generating"]


@contextmanager
def generating(
    anatomy: Anatomy, batch: TokenBatch, edit: Mapping[str, Edit], columns: Columns
) -> Iterator[None]:
    """The edits, for the length of a ``generate`` call.

    An edit at a position acts on the prompt alone; the others act on each new token too.
    """
    functions: dict[Key, list[Edit]] = {}
    for site, fn in edit_pairs(anatomy, edit):
        if isinstance(fn, RowEdit):
            fn = fn.rows(0, len(batch), len(batch))
        if isinstance(fn, PlacedEdit):
            fn = placed(site, fn, lambda position: columns(position).to(batch.ids.device))
        at = None if site.position is None else columns(site.position).to(batch.ids.device)
        whole = edited(site, fn, at)
        functions.setdefault(key_of(site), []).append(whole if at is None else _first_call(whole))
    with tapped(anatomy, {key: chain(fns) for key, fns in functions.items()}):
        yield


def _first_call(fn: Edit) -> Edit:
    called = False

    def once(x: Tensor) -> Tensor:
        nonlocal called
        if called:
            return x
        called = True
        return fn(x)

    return once
