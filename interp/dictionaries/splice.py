"""Dictionaries in a model's run: each where its spec says, checked against the model.

:func:`splices_of` turns dictionaries into :class:`interp.taps.splices.Splice`, which every run of an
anatomy that holds them goes through. ``with model.replaced(...)`` is the way in.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError
from interp.runs.plan import key_of, resolve
from interp.sites import HOSTS, POINTS, Site
from interp.taps.anatomy import Anatomy
from interp.taps.offload import device_of
from interp.taps.splices import Key, Splice

__all__ = ["Dictionaries", "added", "splices_of"]

Dictionaries = Dictionary | Iterable[Dictionary] | Mapping[str | Site, Dictionary]


def splices_of(anatomy: Anatomy, dictionaries: Dictionaries, *, error: bool) -> tuple[Splice, ...]:
    """Each dictionary as a splice, in the order given.

    Raises:
        DictionaryError: a key that is not the dictionary's own site, a width that is not the model's,
            sites that no dictionary can stand at, or two dictionaries at one.
        SiteError: this model does not have a site.
    """
    found: list[Dictionary] = []
    for key, one in _named(dictionaries):
        if not isinstance(one, Dictionary):
            raise DictionaryError(
                f"replaced() got a {type(one).__name__}; expected a Dictionary, several, or a mapping "
                "such as {'L2.mlp': transcoder}."
            )
        if key is not None:
            _check_key(anatomy, key, one)
        _check_sites(anatomy, one)
        found.append(one)
    if not found:
        raise DictionaryError("replaced() was given no dictionary; expected at least one.")
    made: tuple[Splice, ...] = ()
    for one in found:
        made = _joined(made, _splice(anatomy, one, error=error), override=False)
    return made


def added(before: tuple[Splice, ...], more: tuple[Splice, ...]) -> tuple[Splice, ...]:
    """``more`` beside ``before``; where a new one has all sites of an old one, in its place.

    Raises:
        DictionaryError: two would write to one site, and neither replaces the other.
    """
    for one in more:
        before = _joined(before, one, override=True)
    return before


def _named(dictionaries: Any) -> list[tuple[str | Site | None, Any]]:
    if isinstance(dictionaries, Mapping):
        return list(dictionaries.items())
    alone = isinstance(dictionaries, nn.Module) or not isinstance(dictionaries, Iterable)
    return [(None, one) for one in ([dictionaries] if alone else dictionaries)]


# -- where it may stand --------------------------------------------------------------------


def _check_key(anatomy: Anatomy, key: str | Site, dictionary: Dictionary) -> None:
    """A key is the dictionary's features, or what it writes; of several layers, all of them."""
    spec, site = dictionary.spec, Site.parse(key)
    meant = {str(one) for one in site.per_layer(anatomy.n_layers)}
    if meant not in (set(spec.features), set(spec.writes)):
        raise DictionaryError(
            f"{str(site)!r} is not the site of this {spec.kind}, which reads {_some(spec.reads)} and "
            f"writes {_some(spec.writes)}: its key is {_some(spec.features)!r}. A dictionary stands "
            "where it was trained."
        )


def _some(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _check_sites(anatomy: Anatomy, dictionary: Dictionary) -> None:
    spec = dictionary.spec
    for what, names, width in (
        ("reads", spec.reads, spec.d_in), ("writes", spec.writes, spec.d_out),
    ):  # fmt: skip
        for name in names:
            site = Site.parse(name)
            if site.point not in HOSTS or site != site.whole or not _single(site):
                raise DictionaryError(
                    f"this {spec.kind} {what} {name!r}, and dictionaries stand at whole tensors of one "
                    f"layer: {', '.join(HOSTS)}."
                )
            resolve(anatomy, [site])
            have = _width(anatomy, site)
            if have is not None and have != width:
                raise DictionaryError(
                    f"this {spec.kind} {what} {width} numbers at {name!r}, and this model has {have} "
                    f"there: it is a dictionary of another model ({spec.model or 'unknown'})."
                )
    spec.check_order()


def _single(site: Site) -> bool:
    return site.layer is not None and site.layer.single


def _width(anatomy: Anatomy, site: Site) -> int | None:
    """Numbers at each token; None if that is not known."""
    widths = {"d_model": anatomy.d_model, "d_mlp": anatomy.d_mlp,
              "d_head": anatomy.n_heads * anatomy.d_head}  # fmt: skip
    return widths[site.kind.axes[-1]]


def _joined(have: tuple[Splice, ...], one: Splice, *, override: bool) -> tuple[Splice, ...]:
    """``have`` with one more.

    Two meet where they show features or errors at one site, or where both write what they do not
    read: an SAE may stand on what a transcoder writes.
    """
    kept: list[Splice] = []
    for other in have:
        meet = one.shown & other.shown or _written(one) & _written(other)
        covers = set(other.features) <= set(one.features) or (
            _written(other) and _written(other) <= _written(one)
        )
        if meet and not (override and covers):
            where = min(f"L{layer}.{point}" for point, layer in meet)
            raise DictionaryError(
                f"two dictionaries meet at {where}: {other.name} and {one.name}. "
                + ("The one that stands has sites that the new one has not: end it first."
                   if override else "Leave one of them out.")
            )  # fmt: skip
        if not meet:
            kept.append(other)
    return (*kept, one)


def _written(splice: Splice) -> set[Key]:
    return {write for read, write in zip(splice.reads, splice.writes, strict=True) if read != write}


# -- what it does there --------------------------------------------------------------------


def _splice(anatomy: Anatomy, dictionary: Dictionary, *, error: bool) -> Splice:
    spec, still = dictionary.spec, _still(dictionary, device_of(anatomy.hf))
    reads, writes, features = (
        tuple(key_of(Site.parse(name)) for name in names)
        for names in (spec.reads, spec.writes, spec.features)
    )
    heads = tuple(POINTS[point].headed for point, _ in reads)
    shapes = tuple(
        (anatomy.n_heads, anatomy.d_head) if POINTS[point].headed else (spec.d_out,)
        for point, _ in writes
    )

    def flat(part: int, x: Tensor) -> Float[Tensor, "batch pos d_in"]:
        return (x.flatten(-2) if heads[part] else x).to(still.device)

    def encode(part: int, x: Tensor) -> Tensor:
        return still.encode_part(part, flat(part, x)).to(x.device)

    def decode(number: int, acts: Any, x: Tensor) -> Tensor:
        moved = [one.to(still.device) for one in acts]
        out = still.decode_to(number, moved, flat(number, x))
        return out.unflatten(-1, shapes[number]).to(x.device)

    return Splice(
        name=spec.name + ("+error" if error else ""),
        reads=reads,
        writes=writes,
        features=features,
        errors=tuple(map(_error, features, writes)) if error else (),
        d_sae=spec.d_sae,
        encode=encode,
        decode=decode,
        identity=_identity(dictionary, error=error),
    )


def _error(features: Key, write: Key) -> Key:
    return ("mlp.error" if features[0] == "mlp" else f"{write[0]}.error"), write[1]


def _still(dictionary: Dictionary, device: torch.device) -> Dictionary:
    """The same weights where the model computes, out of every graph; not copied on one device."""
    kept: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to(device), requires_grad=False)
        for p in dictionary.parameters()
    }
    kept |= {id(b): b.detach().to(device) for b in dictionary.buffers()}
    kept |= {id(one): one for one in (dictionary.spec, dictionary.training_record)}
    return copy.deepcopy(dictionary, kept).eval()


def _identity(dictionary: Dictionary, *, error: bool) -> Callable[[], str]:
    """The digest of what it computes, made anew only when a weight has been written."""
    spec, known = dictionary.spec, dict[tuple[tuple[int, int], ...], str]()
    what = [spec.activation, dict(spec.options), spec.centre, spec.normalise, error]

    def digest() -> str:
        tensors = (*dictionary.parameters(), *dictionary.buffers())
        state = tuple((id(one), 0 if one.is_inference() else one._version) for one in tensors)
        if state not in known:
            known.clear()
            text = json.dumps([dictionary.hash, *what], sort_keys=True)
            known[state] = hashlib.sha256(text.encode()).hexdigest()
        return known[state]

    return digest
