"""Which sites to harvest, and which of them belong together as what a sublayer reads and writes.

``"L2.mlp"`` is the pair ``L2.mlp.input → L2.mlp_out``, what a transcoder of that MLP is trained on; any
other pair is written as an edge, ``"L1.resid_post -> L3.resid_pre"``. Where a dictionary stands in the
run its features are ``"L2.mlp.F*"``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from interp.errors import SiteError
from interp.models.model import Model
from interp.runs.execute import execute
from interp.runs.plan import key_of, resolve
from interp.sites import Edge, Site
from interp.token_batch import TokenBatch

__all__ = ["SitesAsked", "Wanted", "wanted"]

SitesAsked = str | Site | Edge | Iterable[str | Site | Edge]


@dataclass(frozen=True)
class Wanted:
    """Sites to read in one pass.

    Attributes:
        shapes: for each site the shape of one token's activation.
        pairs: what is read and what is written, for transcoders.
    """

    shapes: dict[Site, tuple[int, ...]]
    pairs: tuple[tuple[str, str], ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self.shapes)

    @property
    def named(self) -> dict[str, tuple[int, ...]]:
        """The shapes by the sites' names."""
        return {str(site): shape for site, shape in self.shapes.items()}

    @property
    def width(self) -> int:
        """Numbers for each token, all sites together."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def wanted(model: Model, sites: SitesAsked) -> Wanted:
    """Read the sites asked for; their shapes come from a run over one token.

    Raises:
        SiteError: no site at all, one the model has not, or one that is not a value per token.
    """
    given = (
        [sites]
        if isinstance(sites, str | Site | Edge) or not isinstance(sites, Iterable)
        else list(sites)
    )
    for one in given:
        if not isinstance(one, str | Site | Edge):
            raise SiteError(
                f"{one!r} is no site to harvest; expected names such as 'L2.mlp_out', Sites or Edges."
            )
    singles: dict[Site, None] = {}
    pairs: dict[tuple[str, str], None] = {}
    for one in given:
        for ends in _ends(model, one):
            singles |= dict.fromkeys(_checked(end) for end in ends)
            if len(ends) == 2:
                pairs[str(ends[0]), str(ends[1])] = None
    if not singles:
        raise SiteError("no sites to harvest were given: name some, as in sites=['L2.mlp_out'].")
    token = TokenBatch.of(torch.zeros(1, 1, dtype=torch.long, device=model.device))
    cache = execute(model.anatomy, token, save=list(singles), logits="none").cache
    return Wanted({site: tuple(cache[site].shape[2:]) for site in singles}, tuple(pairs))


def _ends(model: Model, given: str | Site | Edge) -> list[tuple[Site, ...]]:
    """One site, or the two of a pair, for each layer meant."""
    if isinstance(given, Edge) or (isinstance(given, str) and "->" in given):
        edge = Edge.parse(given)
        sources, targets = (resolve(model.anatomy, end) for end in (edge.source, edge.target))
        if len(sources) != len(targets):
            raise SiteError(
                f"{str(edge)!r} pairs {len(sources)} sites with {len(targets)}: expected as many of "
                "each, as in 'L*.mlp.input -> L*.mlp_out'."
            )
        return list(zip(sources, targets, strict=True))
    site = Site.parse(given)
    ends = site.ends
    if len(ends) == 2:
        _check_meaning(model, site)
    return list(zip(*(resolve(model.anatomy, end) for end in ends), strict=True))


def _check_meaning(model: Model, site: Site) -> None:
    """A pair of ends is not asked for where the same name means a dictionary's features."""
    shown = {key for splice in model.anatomy.splices for key in splice.features}
    if any(key_of(one) in shown for one in site.per_layer(model.n_layers)):
        read, write = site.ends
        raise SiteError(
            f"{str(site)!r} means two things here, where a dictionary stands: its features are "
            f"'{site}.F*', the pair that a transcoder is trained on is '{read} -> {write}'."
        )


def _checked(site: Site) -> Site:
    axes = site.kind.axes
    pair = site.point == "mlp" and site.unit is None
    if axes[:2] != ("batch", "pos") or site.position is not None or pair:
        raise SiteError(
            f"{str(site)!r} cannot be harvested: expected a site with a value for each token and no "
            "'@position', such as 'L2.resid_pre', 'L2.mlp_post', 'L2.z', 'L2.H3.z', or 'L2.mlp' for "
            "the pair that a transcoder is trained on."
        )
    every = site.unit is not None and site.unit.text == "*"  # 'L2.mlp.F*' is all of 'L2.mlp'
    return replace(site, unit=None) if every else site
