"""What callers name, as the store counts it: rows, tokens and sites, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from interp.errors import InterpError, StoreError, nearest
from interp.sites import ALL, Edge, Site

__all__ = ["Sites", "kind_and_place", "row_numbers", "site_names", "spans", "tokens_named"]

#: Some of a store's sites, by name, or pairs of them; None: all.
Sites = str | Site | Edge | Iterable[str | Site | Edge] | None

_MOST_LAYERS = 10_000


def row_numbers(index: Any, n: int) -> Int[ndarray, " row"]:
    """Rows by number, slice or list, each from 0 to ``n - 1``.

    Raises:
        StoreError: something else, or there is no such row.
    """
    if isinstance(index, slice):
        ends = (index.start, index.stop, index.step)
        if any(isinstance(end, Integral) and end < 0 for end in ends):
            raise StoreError(f"{index}: rows are counted from 0 up, and a slice runs forwards.")
        try:
            return np.arange(*index.indices(n), dtype=np.int64)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{index} is no slice of rows: {error}.") from error
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
    """Names of sites, as the store writes them, asked for as ``interp.harvest`` is asked.

    ``"L*.z"`` are those of all layers that it has, ``"L0-2.z"`` those of three, ``"L2.mlp"`` is the
    pair ``mlp.input`` and ``mlp_out``, and ``"a -> b"`` names both ends. What is no site is a pattern
    over the names that it has (``"L2.*"``).

    Raises:
        StoreError: the store lacks one.
    """
    if sites is None:
        return tuple(have)
    if not isinstance(sites, str | Site | Edge | Iterable):
        raise StoreError(f"sites={sites!r}; expected a site, several, or None for all.")
    given = [sites] if isinstance(sites, str | Site | Edge) else list(sites)
    names: list[str] = []
    for name in (name for one in given for name in _asked(one, have)):
        meant = [one for one in have if fnmatchcase(one, name)]
        if not meant:
            raise StoreError(
                f"the store {str(folder)!r} lacks {name!r}; it has {', '.join(have)}; nearest: "
                f"{nearest(name, have)}."
            )
        names += meant
    return tuple(dict.fromkeys(names))


def _asked(given: str | Site | Edge, have: Iterable[str]) -> list[str]:
    """Names, or patterns, of all that one wish stands for."""
    if str(given) in have:
        return [str(given)]
    try:
        if isinstance(given, Edge) or (isinstance(given, str) and "->" in given):
            edge = Edge.parse(given)
            return [*_asked(edge.source, have), *_asked(edge.target, have)]
        return [name for end in Site.parse(given).ends for name in _each_layer(end, have)]
    except InterpError:
        return [str(given)]


def _each_layer(site: Site, have: Iterable[str]) -> list[str]:
    """The site in each layer meant; those that there are, if that is what it says."""
    if site.layer is None or site.layer.text.startswith("-") or ",-" in site.layer.text:
        return [str(site)]  # layers from the end: a store does not know how many the model has
    if site.layer != ALL:
        return [str(site.at(layer=n)) for n in site.layer.expand(_MOST_LAYERS, "layer")]
    layers = dict.fromkeys(one.layer for one in map(Site.parse, have) if one.layer is not None)
    names = [str(site.at(layer=layer)) for layer in layers]
    return [name for name in names if any(fnmatchcase(one, name) for one in have)] or [str(site)]


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


def kind_and_place(dtype: Any, device: Any) -> tuple[torch.dtype | None, torch.device | None]:
    """A dtype, and a device with its number: "cuda" is this thread's current GPU, not another's.

    Raises:
        StoreError: it is no dtype, or there is no such device.
    """
    if not isinstance(dtype, torch.dtype | None):
        raise StoreError(f"dtype={dtype!r}; expected a torch dtype, such as torch.float32.")
    try:
        return dtype, None if device is None else torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise StoreError(f"device={device!r} cannot be had: {why}.") from error


def spans(numbers: Int[ndarray, " n"]) -> str:
    """Ascending numbers as text: ``positions 1 to 4 and 9``."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    runs = [(run[0], run[-1]) for run in np.split(numbers, breaks)]
    found = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    shown = found if len(found) <= 4 else [*found[:3], "…", found[-1]]
    return f"positions {', '.join(shown)}"


def _array(given: Any) -> ndarray:
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.is_floating_point() else given  # bfloat16, which NumPy lacks
    try:
        return np.atleast_1d(np.asarray(given))
    except ValueError as error:
        raise StoreError(f"{given!r} is no row of whole numbers: {error}.") from error
