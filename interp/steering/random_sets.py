"""The control of an ablation: what would it have done to as many sites taken at random?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from interp.errors import RunError, SiteError
from interp.models.model import Model
from interp.patching.cells import members
from interp.patching.result import PatchResult
from interp.runs.plan import resolve, units_of
from interp.sites import ALL, Site
from interp.steering.ablation import Inputs, ablate

__all__ = ["random_ablation"]


def random_ablation(
    model: Model,
    prompts: Inputs,
    sites: int | str,
    *,
    draws: int = 50,
    pool: str | Site | Sequence[str | Site] = "L*.H*.z",
    same_layers: bool = False,
    seed: int = 0,
    **options: Any,
) -> PatchResult:
    """The control of an ablation: random sets of as many sites, ablated in the same way.

    The axis ``site`` of the result names each set. ``ablation.p_value(null)`` compares
    a set of your own with them.

    >>> null = interp.random_ablation(model, prompts, "L1.H0.z + L2.H3.z")  # doctest: +SKIP

    Args:
        sites: how many sites a set has, or a group such as ``"L1.H0.z + L2.H3.z"`` to match.
        draws: how many sets; sets may repeat, and may be the group itself, as in any
            permutation test.
        pool: what is drawn from: heads or neurons by wildcard, or a list of sites.
        same_layers: draw for each site of the group another (or itself) of its own layer.
        seed: of the draws, and of ``resample`` and ``noise``.
        options: of :func:`ablate`: ``method``, ``reference``, ``metric``, ``positions``, ...

    Raises:
        RunError: no draws, or ``same_layers`` without a group.
        SiteError: the pool has fewer sites than a set (or than a layer needs).
    """
    if isinstance(draws, bool) or not hasattr(draws, "__index__") or draws < 1:
        raise RunError(f"draws={draws!r}; expected a number of random sets, at least 1.")
    every = _pool(model, pool)
    layers = _layers(model, sites, every, same_layers=same_layers)
    generator = torch.Generator().manual_seed(seed)
    sets = [_draw(every, layers, generator) for _ in range(draws)]
    return ablate(model, prompts, sets, seed=seed, **options)


def _pool(model: Model, pool: str | Site | Sequence[str | Site]) -> list[Site]:
    """Single sites: wildcards over layers, heads and neurons written out."""
    found: dict[Site, None] = {}
    for site in resolve(model.anatomy, pool):
        if site.head is not None or site.kind.headed:
            count = model.n_kv_heads if "kv_head" in site.kind.axes else model.n_heads
            found |= {site.at(head=n): None for n in (site.head or ALL).expand(count, "head")}
        elif site.unit is not None:
            count = units_of(model.anatomy, site)
            found |= {site.at(unit=n): None for n in site.unit.expand(count, "unit")}
        else:
            found[site] = None
    return list(found)


def _layers(
    model: Model, sites: int | str, pool: Sequence[Site], *, same_layers: bool
) -> list[str | None]:
    """For each member of a set the layer it is drawn from; None: any."""
    if isinstance(sites, str | Site):
        group = members(sites)
        own = [one for site in group for one in _pool(model, [site])]
        layers = [_layer(site) if same_layers else None for site in own]
    elif isinstance(sites, bool) or not hasattr(sites, "__index__") or sites < 1:
        raise RunError(f"sites={sites!r}; expected a number of sites, or a group such as 'A + B'.")
    elif same_layers:
        raise RunError("same_layers=True needs the group to match, such as 'L1.H0.z + L2.H3.z'.")
    else:
        layers = [None] * sites
    for layer in set(layers):
        have = sum(layer is None or _layer(site) == layer for site in pool)
        if have < layers.count(layer):
            where = "the pool" if layer is None else f"layer {layer} of the pool"
            raise SiteError(f"{where} has {have} sites, and a set takes {layers.count(layer)}.")
    return layers


def _layer(site: Site) -> str | None:
    return None if site.layer is None else site.layer.text


def _draw(pool: Sequence[Site], layers: Sequence[str | None], generator: torch.Generator) -> str:
    """A random group, without repetition."""
    chosen: set[Site] = set()
    for layer in layers:
        free = [s for s in pool if s not in chosen and (layer is None or _layer(s) == layer)]
        chosen.add(free[int(torch.randint(len(free), (), generator=generator))])
    return " + ".join(str(site) for site in pool if site in chosen)
