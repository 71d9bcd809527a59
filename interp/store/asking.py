"""What callers name, as the store counts it: rows, tokens and sites, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from interp.errors import InterpError, StoreError, nearest
from interp.sites import Site

__all__ = ["Sites", "row_numbers", "site_names", "spans", "tokens_named"]

#: Some of a store's sites, by name; None: all.
Sites = str | Site | Iterable[str | Site] | None


def row_numbers(index: Any, n: int) -> Int[ndarray, " row"]:
    """Rows by number, slice or list, each from 0 to ``n - 1``.

    Raises:
        StoreError: something else, or there is no such row.
    """
    if isinstance(index, slice):
        if any(end is not None and end < 0 for end in (index.start, index.stop, index.step)):
            raise StoreError(f"{index}: rows are counted from 0 up, and a slice runs forwards.")
        return np.arange(*index.indices(n), dtype=np.int64)
    given = _array(index)
    if given.size == 0:
        return np.empty(0, dtype=np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise StoreError(
            f"rows by {given.dtype} of shape {list(given.shape)}; expected a whole number, a "
            "slice, or one row of whole numbers. Of a mask take mask.nonzero().flatten()."
        )
    outside = given[(given < 0) | (given >= n)]
    if outside.size:
        raise StoreError(
            f"there is no row {int(outside[0])}: this store has {n} rows, counted from 0 up, and "
            "negative numbers do not count from the end."
        )
    return given.astype(np.int64)


def site_names(folder: Path, have: Mapping[str, tuple[int, ...]], sites: Sites) -> tuple[str, ...]:
    """Names of sites, as the store writes them; a star stands for any number it has.

    Raises:
        StoreError: the store lacks one.
    """
    if sites is None:
        return tuple(have)
    given = [sites] if isinstance(sites, str | Site) else list(sites)
    names: list[str] = []
    for name in (str(site) if str(site) in have else _canonical(site) for site in given):
        meant = [one for one in have if fnmatchcase(one, name)]
        if not meant:
            raise StoreError(
                f"the store {str(folder)!r} lacks {name!r}; it has {', '.join(have)}; nearest: "
                f"{nearest(name, have)}."
            )
        names += meant
    return tuple(dict.fromkeys(names))


def _canonical(site: str | Site) -> str:
    try:
        return str(Site.parse(site))
    except InterpError:
        return str(site)


def tokens_named(document: Any, position: Any) -> tuple[Int[ndarray, " n"], Int[ndarray, " n"]]:
    """Documents and positions, one for each of the other.

    Raises:
        StoreError: they are no whole numbers, or not as many.
    """
    given = [_array(one) for one in (document, position)]
    for name, one in zip(("document", "position"), given, strict=True):
        if one.ndim != 1 or (one.size and one.dtype.kind not in "iu"):
            raise StoreError(
                f"{name} is {one.dtype} of shape {list(one.shape)}; expected a whole number, or one "
                "row of them."
            )
    documents, positions = given
    if len({documents.size, positions.size} - {1}) > 1:
        raise StoreError(
            f"{documents.size} documents and {positions.size} positions; expected one for each, or "
            "one for all."
        )
    both = np.broadcast_arrays(documents, positions)
    return both[0].astype(np.int64), both[1].astype(np.int64)


def spans(numbers: Int[ndarray, " n"]) -> str:
    """Ascending numbers as text: ``positions 1 to 4 and 9``."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    runs = [(run[0], run[-1]) for run in np.split(numbers, breaks)]
    found = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    shown = found if len(found) <= 4 else [*found[:3], "…", found[-1]]
    return f"positions {', '.join(shown)}"


def _array(given: Any) -> ndarray:
    return np.atleast_1d(np.asarray(given.cpu() if isinstance(given, Tensor) else given))
