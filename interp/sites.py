"""Sites: the one address type, and the only file that reads or writes site names.

A transformer run is a stream of named tensors. A :class:`Site` names one of
them, or a family of them, or a slice of one:

==========================  ====================================================
``L5.resid_pre``            the residual stream that enters block 5
``blocks.5.hook_resid_pre`` the same, in TransformerLens's words
``L*.resid_pre``            in every block
``L4-8.H*.z``               each head's output (before W_O) in blocks 4 to 8, inclusive
``L5.H3.z@-1``              head 3 of block 5, at the last position
``L5.H1,3.pattern``         two heads
``L-1.resid_post``          the last block (negative layers count from the end)
``L3.mlp_post.N77``         neuron 77
``L2.mlp.F1204``            feature 1204 of the dictionary that reads and writes block 2's MLP
``L9.resid_pre@subject_last``  at a position which the prompts define by name
``embed``, ``ln_final.scale``  tensors which belong to no block
``L1.H0.z -> L2.H1.k``      an :class:`Edge`
==========================  ====================================================

Points carry TransformerLens's names and meaning; ``attn.input`` and
``mlp.input`` (after the norm's γ and β: what the sublayer reads) are added.
Names that survive ``str(Site.parse(text))`` are canonical: parsing and
printing are inverse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from interp.errors import SiteError, nearest

__all__ = ["ALL", "POINTS", "Edge", "Index", "Point", "Site"]


@dataclass(frozen=True, slots=True)
class Point:
    """One kind of tensor: its short name, its TransformerLens name, and its axes."""

    name: str
    hook: str
    axes: tuple[str, ...]
    units: str = ""  # the letter under which the last axis may be indexed: N or F

    @property
    def layered(self) -> bool:
        """Whether each block has one of these."""
        return "{layer}" in self.hook

    @property
    def headed(self) -> bool:
        """Whether one of the axes counts heads."""
        return "head" in self.axes or "kv_head" in self.axes

    @property
    def head_axis(self) -> int:
        """The axis that counts heads (query heads, or key-value heads for ``k`` and ``v``)."""
        return next(i for i, axis in enumerate(self.axes) if axis in ("head", "kv_head"))


def _points() -> dict[str, Point]:
    stream, block = ("batch", "pos", "d_model"), "blocks.{layer}."
    query, keyed = ("batch", "pos", "head", "d_head"), ("batch", "pos", "kv_head", "d_head")
    square = ("batch", "head", "query", "key")
    rows: list[tuple[str, str, tuple[str, ...], str]] = [
        ("embed", "hook_embed", stream, ""),
        ("pos_embed", "hook_pos_embed", stream, ""),
        ("resid_pre", block + "hook_resid_pre", stream, ""),
        ("ln1.scale", block + "ln1.hook_scale", ("batch", "pos", "one"), ""),
        ("ln1.normalized", block + "ln1.hook_normalized", stream, ""),
        ("attn.input", block + "attn.hook_in", stream, ""),
        ("q", block + "attn.hook_q", query, ""),
        ("k", block + "attn.hook_k", keyed, ""),
        ("v", block + "attn.hook_v", keyed, ""),
        ("rot_q", block + "attn.hook_rot_q", query, ""),
        ("rot_k", block + "attn.hook_rot_k", keyed, ""),
        ("attn_scores", block + "attn.hook_attn_scores", square, ""),
        ("pattern", block + "attn.hook_pattern", square, ""),
        ("z", block + "attn.hook_z", query, ""),
        ("result", block + "attn.hook_result", ("batch", "pos", "head", "d_model"), ""),
        ("attn_out", block + "hook_attn_out", stream, ""),
        ("resid_mid", block + "hook_resid_mid", stream, ""),
        ("ln2.scale", block + "ln2.hook_scale", ("batch", "pos", "one"), ""),
        ("ln2.normalized", block + "ln2.hook_normalized", stream, ""),
        ("mlp.input", block + "mlp.hook_in", stream, ""),
        ("mlp_pre", block + "mlp.hook_pre", ("batch", "pos", "d_mlp"), "N"),
        ("mlp_post", block + "mlp.hook_post", ("batch", "pos", "d_mlp"), "N"),
        ("mlp_out", block + "hook_mlp_out", stream, ""),
        ("mlp", block + "mlp.dictionary", ("batch", "pos", "d_sae"), "F"),
        ("resid_post", block + "hook_resid_post", stream, ""),
        ("ln_final.scale", "ln_final.hook_scale", ("batch", "pos", "one"), ""),
        ("ln_final.normalized", "ln_final.hook_normalized", stream, ""),
        ("logits", "unembed.hook_out", ("batch", "pos", "d_vocab"), ""),
    ]
    return {name: Point(name, hook, axes, units) for name, hook, axes, units in rows}


POINTS: Final[dict[str, Point]] = _points()
_BY_HOOK: Final = {p.hook.removeprefix("blocks.{layer}."): p for p in POINTS.values()}


@dataclass(frozen=True, slots=True)
class Index:
    """Which layers, heads or units: ``5``, ``-1``, ``4-8`` (inclusive), ``1,3`` or ``*``."""

    text: str

    def __post_init__(self) -> None:
        if self.text != "*" and not re.fullmatch(r"-?\d+(-\d+)?(,-?\d+(-\d+)?)*", self.text):
            raise SiteError(
                f"{self.text!r} is not an index: expected a number (5, -1), an inclusive "
                "range (4-8), a list (1,3) or a star (*)."
            )

    @property
    def single(self) -> bool:
        """Whether this is one number, which drops its axis."""
        return re.fullmatch(r"-?\d+", self.text) is not None

    def expand(self, size: int, what: str) -> tuple[int, ...]:
        """The numbers meant, each in ``range(size)``, in ascending order of the text.

        Raises:
            SiteError: a number lies outside, or a range runs backwards.
        """
        if self.text == "*":
            return tuple(range(size))
        numbers: list[int] = []
        for part in self.text.split(","):
            match = re.fullmatch(r"(-?\d+)(?:-(\d+))?", part)
            assert match is not None  # __post_init__ has checked the text
            low = int(match[1])
            high = low if match[2] is None else int(match[2])
            for number in (low, high):
                if not -size <= number < size:
                    raise SiteError(
                        f"{what} {number} is out of range: this model has {size} "
                        f"({what} 0 to {size - 1}, or -1 to -{size} from the end)."
                    )
            if high % size < low % size:
                raise SiteError(f"{what} range {part!r} runs backwards: write the lower end first.")
            numbers.extend(range(low % size, high % size + 1))
        return tuple(dict.fromkeys(numbers))


ALL: Final = Index("*")

_SHORT = re.compile(
    r"(?:L(?P<layer>[^.@]+)\.)?(?:H(?P<head>[^.@]+)\.)?"
    r"(?P<point>[A-Za-z_][A-Za-z0-9_]*(?:\.(?![NF][\d*-])[A-Za-z_]+)?)"
    r"(?:\.(?P<letter>[NF])(?P<unit>[^.@]+))?(?:@(?P<position>.+))?"
)
_LONG = re.compile(r"(?:blocks\.(?P<layer>[^.@]+)\.)?(?P<hook>[^@]+?)(?:@(?P<position>.+))?")


@dataclass(frozen=True, slots=True)
class Site:
    """A named tensor of a run, or several, or a slice: see the table above.

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
            heads = ", ".join(p.name for p in POINTS.values() if p.headed)
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
        cls._check_point(clean, match["point"])
        if match["letter"] is not None and match["letter"] != POINTS[match["point"]].units:
            letter = POINTS[match["point"]].units
            hint = f"its units are written {letter}7" if letter else "it has no numbered units"
            raise SiteError(f"{text!r}: {match['point']!r} has no {match['letter']}; {hint}.")
        layer, head, unit = (
            None if match[group] is None else Index(match[group])
            for group in ("layer", "head", "unit")
        )
        return cls(match["point"], layer, head, unit, _position(match["position"]))

    @classmethod
    def _parse_long(cls, text: str) -> Site:
        match = _LONG.fullmatch(text)
        assert match is not None  # the pattern takes any text
        point = _BY_HOOK.get(match["hook"])
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
        return f"{layer}{head}{self.point}{unit}{position}"


@lru_cache(maxsize=4096)
def _whole(site: Site) -> Site:
    return replace(site, head=None, unit=None, position=None)


@lru_cache(maxsize=4096)
def _per_layer(site: Site, n_layers: int) -> tuple[Site, ...]:
    if site.layer is None:
        return (site,)
    return tuple(site.at(layer=layer) for layer in site.layer.expand(n_layers, "layer"))


@dataclass(frozen=True, slots=True)
class Edge:
    """A directed pair of sites: what ``source`` writes and ``target`` reads."""

    source: Site
    target: Site

    @classmethod
    def parse(cls, text: str | Edge) -> Edge:
        """Read ``"a -> b"``.

        >>> str(Edge.parse("L1.H0.z->blocks.2.attn.hook_k"))
        'L1.H0.z -> L2.k'

        Raises:
            SiteError: there is not exactly one arrow, or an end is not a site.
        """
        if isinstance(text, Edge):
            return text
        ends = text.split("->")
        if len(ends) != 2:
            raise SiteError(f"{text!r} is not an edge: expected 'L1.H0.z -> L2.H1.k'.")
        return cls(Site.parse(ends[0]), Site.parse(ends[1]))

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def _position(text: str | None) -> int | str | None:
    if text is None:
        return None
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return text
    raise SiteError(f"'@{text}' is not a position: expected an integer or a name such as '@END'.")
