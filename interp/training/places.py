"""Which sites a dictionary reads and writes, given the sites there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from interp.dictionaries.spec import DictionarySpec
from interp.errors import TrainingError, nearest
from interp.sites import Edge, Site
from interp.training.config import TrainConfig

__all__ = ["asked_of", "ends_of", "specified"]


def ends_of(config: TrainConfig) -> tuple[Site, Site]:
    """What is read and what is written; layers may still be a pattern.

    Raises:
        TrainingError: a site that this kind cannot be trained at.
    """
    edge = "->" in config.site
    ends = (Edge.parse(config.site).source, Edge.parse(config.site).target) if edge else (
        Site.parse(config.site).ends
    )  # fmt: skip
    for site in ends:
        if site.position is not None or site.unit is not None:
            raise TrainingError(f"{str(site)!r} is a part of a site; train at {str(site.whole)!r}.")
    if config.kind == "sae":
        if len(ends) == 2:
            raise TrainingError(
                f"an SAE reads and writes one site, and {config.site!r} is two: say "
                f"site={str(ends[1])!r}, or kind='transcoder'."
            )
        return ends[0], ends[0]
    if len(ends) != 2:
        raise TrainingError(
            f"a {config.kind} reads one site and writes another: say site='L2.mlp' (mlp.input → "
            f"mlp_out) or 'L2.mlp.input -> L2.mlp_out'; given {config.site!r}."
        )
    return ends[0], ends[1]


def asked_of(config: TrainConfig) -> list[str]:
    """What to ask a model for."""
    read, write = ends_of(config)
    return [str(read)] if config.kind == "sae" else [f"{read} -> {write}"]


def specified(
    config: TrainConfig,
    shapes: Mapping[str, Sequence[int]],
    *,
    model: str,
    weights_hash: str,
    metadata: Mapping[str, Any],
) -> DictionarySpec:
    """The spec of a configuration's dictionary.

    Raises:
        TrainingError: the data has no such site, or layers that do not go together.
        DictionaryError: it would read what a run computes after what it writes.
    """
    reads, writes = (_named(end, shapes) for end in ends_of(config))
    crossing = config.kind == "cross_layer_transcoder"
    if len(reads) != len(writes) or (len(reads) > 1) != crossing:
        raise TrainingError(
            f"{config.site!r} means {len(reads)} sites to read and {len(writes)} to write; expected "
            + ("several of each, one for each layer: 'L*.mlp'." if crossing else
               "one of each. For several dictionaries give a list of sites.")
        )  # fmt: skip
    activation = "batchtopk" if config.activation == "matryoshka" else config.activation
    spec = DictionarySpec(
        kind=config.kind,
        reads=tuple(reads),
        writes=tuple(writes),
        d_in=_width(reads, shapes),
        d_out=_width(writes, shapes),
        d_sae=config.d_sae,
        activation=activation,
        options={"k": config.k} if config.picks else {},
        centre=config.kind == "sae",
        model=model,
        weights_hash=weights_hash,
        metadata=metadata,
    )
    spec.check_order()
    return spec


def _named(site: Site, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    if site.layer is None or site.layer.single:
        if str(site) not in shapes:
            raise TrainingError(
                f"the data has no {str(site)!r}; nearest: {nearest(str(site), shapes)}."
            )
        return [str(site)]
    there = [Site.parse(name) for name in shapes]
    layers = sorted(
        int(one.layer.text) for one in there if one.layer is not None and one.point == site.point
    )
    wanted = layers if site.layer.text == "*" else list(site.layer.expand(layers[-1] + 1, "layer")) \
        if layers else []  # fmt: skip
    if not wanted or any(layer not in layers for layer in wanted):
        raise TrainingError(f"the data has no {str(site)!r}; it has {', '.join(shapes)}.")
    if wanted != list(range(wanted[0], wanted[-1] + 1)):
        raise TrainingError(f"{str(site)!r} means layers {wanted}, which leave some out.")
    return [str(site.at(layer=layer)) for layer in wanted]


def _width(names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> int:
    widths = {math.prod(shapes[name]) for name in names}
    if len(widths) != 1:
        raise TrainingError(f"{', '.join(names)} have widths {sorted(widths)}; expected one.")
    return widths.pop()
