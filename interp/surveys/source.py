"""Where a survey's rows come from: a store, a live stream, or any iterable of Rows.

A survey reads a source once, in its own order: stretches of documents, each no longer than the
context, tokens as they stand in them. That is what lets an example show the text around it without
anything being kept.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch

from interp.errors import RunError, SiteError, nearest
from interp.results import Provenance, versions
from interp.sites import Site
from interp.store.rows import Rows

__all__ = ["Digest", "Source", "chunks", "expand", "is_whole", "opened", "origin"]

_MOST_LAYERS = 10_000


@runtime_checkable
class Source(Protocol):
    """Rows of activations, one for each token, that can be read from the first to the last.

    ``interp.harvest``'s store and ``interp.stream`` are sources; with ``shuffle=None`` both give rows
    in the order in which the corpus was packed.
    """

    @property
    def sites(self) -> Iterable[str]:
        """Names of the sites that its rows have."""
        ...

    def batches(self, size: int, *, shuffle: None = None) -> Iterator[Rows]:
        """All rows, ``size`` at a time."""
        ...


@dataclass(frozen=True, eq=False)
class _Given:
    """An iterable of Rows as a source."""

    sites: tuple[str, ...]
    rows: Iterable[Rows]

    def batches(self, size: int, *, shuffle: None = None) -> Iterator[Rows]:
        return iter(self.rows)


def opened(source: Any) -> Source:
    """A source of what was given.

    Raises:
        RunError: it is no source, or gives nothing.
    """
    if hasattr(source, "batches") and hasattr(source, "sites"):
        return source
    if isinstance(source, Rows):
        source = [source]
    if not isinstance(source, Iterable) or isinstance(source, str):
        raise RunError(
            f"a survey got a {type(source).__name__}; expected a source of activations: an "
            "ActivationStore, interp.stream(model, corpus, sites), or an iterable of Rows."
        )
    rows = iter(source)
    first = next(rows, None)
    if not isinstance(first, Rows):
        raise RunError(
            f"a survey got an iterable {'of ' + type(first).__name__ if first is not None else 'without rows'}; "
            "expected Rows: activations with their tokens, documents and positions."
        )
    return _Given(first.sites, chain([first], rows))


def expand(asked: str | Site | Sequence[str | Site] | None, have: Sequence[str]) -> tuple[str, ...]:
    """The whole sites of a source that a pattern, or several, mean; None means all.

    Raises:
        SiteError: the source has none of that name.
    """
    if asked is None:
        return tuple(have)
    several = [asked] if isinstance(asked, str | Site) else list(asked)
    return tuple(dict.fromkeys(name for one in several for name in _expand_one(one, have)))


def _expand_one(asked: str | Site, have: Sequence[str]) -> list[str]:
    if str(asked) in have:
        return [str(asked)]
    site = Site.parse(asked)
    if site.position is not None:
        raise SiteError(
            f"{str(asked)!r}: a survey reads every token; leave '@{site.position}' out."
        )
    parsed = {name: Site.parse(name) for name in have}
    by_layer = {s.layer and s.layer.text: n for n, s in parsed.items() if s.point == site.point}
    if site.layer is not None and re.search(r"(^|,)-", site.layer.text):
        raise SiteError(
            f"{str(asked)!r} counts layers from the end, and a source does not know how many there "
            "are: write the layer's number."
        )
    if site.layer is None or site.layer.text == "*":
        found: list[str | None] = list(by_layer.values())
    else:
        found = [by_layer.get(str(layer)) for layer in site.layer.expand(_MOST_LAYERS, "layer")]
    if not found or None in found:
        raise SiteError(
            f"this source has no {str(asked)!r}; it has {', '.join(have)} "
            f"(nearest: {nearest(str(asked), have)}). Harvest it too."
        )
    return [name for name in found if name is not None]


def is_whole(value: Any, *, least: int) -> bool:
    """Whether this is a whole number, ``least`` or more."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and value >= least


def chunks(source: Source, sites: Sequence[str], size: int) -> Iterator[Rows]:
    """The rows of a source in its own order; only some sites are read where it lets one choose.

    What reads ahead is closed once nobody asks for more.
    """
    options: dict[str, Any] = {"shuffle": None}
    if "sites" in inspect.signature(source.batches).parameters:
        options["sites"] = tuple(sites)
    batches = source.batches(size, **options)
    try:
        yield from batches
    finally:
        if hasattr(batches, "close"):
            batches.close()


class Digest:
    """sha256 over tokens and their documents, however they are cut into rows."""

    def __init__(self) -> None:
        self._parts = [hashlib.sha256(), hashlib.sha256()]

    def with_rows(self, rows: Rows) -> Digest:
        """The digest of these rows too; itself stays as it is."""
        out = Digest()
        out._parts = [part.copy() for part in self._parts]
        for part, ids in zip(out._parts, (rows.tokens, rows.document), strict=True):
            part.update(ids.to("cpu", torch.int64).numpy().astype("<i8").tobytes())
        return out

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(part.digest() for part in self._parts)).hexdigest()


def origin(source: Source, digest: Digest, **call: Any) -> Provenance:
    """Whose activations these are: what a live model, or a store's manifest, says of itself.

    ``prompts_hash`` is of the tokens that were read. Of bare rows no model is known: its name is "".
    """
    model, manifest = getattr(source, "model", None), getattr(source, "manifest", None)
    corpus = getattr(manifest, "corpus", None) or getattr(
        getattr(source, "corpus", None), "identity", None
    )
    if hasattr(manifest, "weights_hash"):
        name, weights = manifest.model, manifest.weights_hash  # type: ignore[union-attr]
    elif hasattr(model, "weights_hash"):
        name, weights = model.name, model.weights_hash  # type: ignore[union-attr]
    else:
        name, weights = "", ""
    return Provenance(
        call=call if corpus is None else {**call, "corpus": dict(corpus)},
        model=name, weights_hash=weights, prompts_hash=digest.hexdigest(), seed=None,
        versions=versions(),
    )  # fmt: skip
