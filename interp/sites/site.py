"""One site: read from text, printed, narrowed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from interp.errors import SiteError, nearest
from interp.sites.index import Index
from interp.sites.points import BY_HOOK, POINTS, Point

__all__ = ["Site"]

_SHORT = re.compile(
    r"(?:L(?P<layer>[^.@]+)\.)?(?:H(?P<head>[^.@]+)\.)?"
    r"(?P<point>[A-Za-z_][A-Za-z0-9_]*(?:\.(?![NF][\d*-])[A-Za-z_]+){0,2})"
    r"(?:\.(?P<letter>[NF])(?P<unit>[^.@]+))?(?:@(?P<position>.+))?"
)
_LONG = re.compile(r"(?:blocks\.(?P<layer>[^.@]+)\.)?(?P<hook>[^@]+?)(?:@(?P<position>.+))?")


@dataclass(frozen=True, slots=True)
class Site:
    """A named tensor of a run, or several, or a slice: see the table in :mod:`interp.sites`.

    Attributes:
        point: the kind of tensor, a key of :data:`POINTS`.
        layer: which blocks; None for points which belong to no block.
        head: which heads; None means the whole tensor.
        unit: which neurons (``N``) or dictionary features (``F``); None means all.
        position: an integer (negative from the end) or a name the prompts define.
    """

    point: str
    layer: Index | None = None
    head: Index | None = None
    unit: Index | None = None
    position: int | str | None = None

    def __post_init__(self) -> None:
        if self.point not in POINTS:
            raise SiteError(
                f"no point is called {self.point!r}; nearest: {nearest(self.point, POINTS)}."
            )
        kind = POINTS[self.point]
        if kind.layered and self.layer is None:
            raise SiteError(
                f"{self.point!r} needs a layer: write 'L5.{self.point}', or 'L*.{self.point}'."
            )
        if not kind.layered and self.layer is not None:
            raise SiteError(f"{self.point!r} belongs to no block: write it without a layer.")
        if self.head is not None and not kind.headed:
            heads = ", ".join(p.name for p in POINTS.values() if p.headed and not p.spliced)
            raise SiteError(f"{self.point!r} has no heads; points which have: {heads}.")
        if self.unit is not None and not kind.units:
            raise SiteError(f"{self.point!r} has no numbered units; neurons are 'L3.mlp_post.N77'.")
        if self.position is not None and "pos" not in kind.axes:
            raise SiteError(
                f"{self.point!r} has the axes {', '.join(kind.axes)} and no single position axis: "
                f"leave out '@{self.position}' and index the tensor."
            )

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read a site from its short form or from TransformerLens's name.

        >>> str(Site.parse("blocks.5.attn.hook_z"))
        'L5.z'
        >>> Site.parse("L5.H3.z@-1").hook_name
        'blocks.5.attn.hook_z'

        Raises:
            SiteError: the text fits neither form, or names an unknown point.
        """
        if isinstance(text, Site):
            return text
        if not isinstance(text, str):
            raise SiteError(f"{text!r} is not a site: expected text such as 'L5.resid_pre'.")
        clean = text.strip()
        if "->" in clean:
            raise SiteError(f"{text!r} is an edge between two sites: use Edge.parse.")
        if "hook_" in clean or clean.startswith("blocks."):
            return cls._parse_long(clean)
        match = _SHORT.fullmatch(clean)
        if match is None:
            raise SiteError(
                f"{text!r} is not a site: expected a form such as 'L5.resid_pre', "
                "'L4-8.H*.z@-1' or 'blocks.5.attn.hook_z'."
            )
        point, given = match["point"], match["letter"]
        if given == "F" and f"{point}.features" in POINTS:
            point += ".features"
        cls._check_point(clean, point)
        if given is not None and given != (letter := POINTS[point].units):
            hint = f"its units are written {letter}7" if letter else "it has no numbered units"
            raise SiteError(f"{text!r}: {point!r} has no {given}; {hint}.")
        layer, head, unit = (
            None if match[group] is None else Index(match[group])
            for group in ("layer", "head", "unit")
        )
        return cls(point, layer, head, unit, _position(match["position"]))

    @classmethod
    def _parse_long(cls, text: str) -> Site:
        match = _LONG.fullmatch(text)
        assert match is not None  # the pattern takes any text
        point = BY_HOOK.get(match["hook"])
        if point is None or point.layered != (match["layer"] is not None):
            layer = match["layer"]
            names = (
                p.hook.format(layer=layer if layer is not None else "5") for p in POINTS.values()
            )
            stem = text.split("@")[0]
            raise SiteError(f"no hook is called {stem!r}; nearest: {nearest(stem, names)}.")
        layer_index = None if match["layer"] is None else Index(match["layer"])
        return cls(point.name, layer_index, position=_position(match["position"]))

    @staticmethod
    def _check_point(text: str, point: str) -> None:
        if point not in POINTS:
            prefix = text[: text.index(point)]
            names = [prefix + name for name in POINTS]
            raise SiteError(
                f"no point is called {point!r} (in {text!r}); "
                f"nearest: {nearest(prefix + point, names)}."
            )

    @property
    def kind(self) -> Point:
        """The point's entry in :data:`POINTS`: axes, TransformerLens name."""
        return POINTS[self.point]

    @property
    def hook_name(self) -> str:
        """TransformerLens's name of the whole tensor, without head, unit or position."""
        layer = self.layer.text if self.layer is not None else ""
        return self.kind.hook.format(layer=layer)

    @property
    def whole(self) -> Site:
        """The tensor that this site is a slice of."""
        return _whole(self)

    @property
    def ends(self) -> tuple[Site, ...]:
        """What a dictionary at this site reads and writes: ``L2.mlp`` is ``mlp.input → mlp_out``;
        every other site is its own only end."""
        if self.point != "mlp" or self.unit is not None:
            return (self,)
        return replace(self, point="mlp.input"), replace(self, point="mlp_out")

    def at(self, **parts: int | str | Index | None) -> Site:
        """The same site with some parts set: ``site.at(layer=3, head=1, position=-1)``."""
        indexed = {
            name: Index(str(part)) if name != "position" and isinstance(part, int | str) else part
            for name, part in parts.items()
        }
        return replace(self, **indexed)  # type: ignore[arg-type]

    def per_layer(self, n_layers: int) -> tuple[Site, ...]:
        """One site for each layer meant, in ascending order; itself if it has no layer."""
        return _per_layer(self, n_layers)

    def __str__(self) -> str:
        layer = f"L{self.layer.text}." if self.layer is not None else ""
        head = f"H{self.head.text}." if self.head is not None else ""
        unit = f".{self.kind.units}{self.unit.text}" if self.unit is not None else ""
        position = f"@{self.position}" if self.position is not None else ""
        point = self.point.removesuffix(".features") if unit else self.point
        return f"{layer}{head}{point}{unit}{position}"


@lru_cache(maxsize=4096)
def _whole(site: Site) -> Site:
    return replace(site, head=None, unit=None, position=None)


@lru_cache(maxsize=4096)
def _per_layer(site: Site, n_layers: int) -> tuple[Site, ...]:
    if site.layer is None:
        return (site,)
    return tuple(site.at(layer=layer) for layer in site.layer.expand(n_layers, "layer"))


def _position(text: str | None) -> int | str | None:
    if text is None:
        return None
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return text
    raise SiteError(f"'@{text}' is not a position: expected an integer or a name such as '@END'.")
