"""The cells of a sweep: one axis for each wildcard, one or several spots for each cell.

``"L*.H*.z"`` is a cell for each layer and head. ``"L1.H0.z + L2.H3.z"`` is one cell that
replaces both; members of a group with wildcards move along the same axes together.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.engine.spots import Cell, Spot
from interp.errors import PromptError, RunError, SiteError, warn
from interp.prompts.prompts import Prompts
from interp.results import Axis
from interp.runs.plan import key_of, resolve, units_of
from interp.sites import Site
from interp.taps.anatomy import Anatomy

__all__ = ["Grid", "Positions", "Sites", "lay_out", "members"]

#: "each" column, "all" at once, one named or numbered position, or several.
Positions = int | str | Sequence[int | str] | None
Sites = str | Site | Sequence[str | Site]


@dataclass(frozen=True)
class Grid:
    """Axes, and a cell for each place on them in row-major order."""

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)


def members(sites: str | Site) -> tuple[Site, ...]:
    """The sites of a group: ``"L1.H0.z + L2.H3.z"``."""
    if isinstance(sites, Site):
        return (sites,)
    return tuple(Site.parse(part) for part in sites.split("+"))


def lay_out(
    anatomy: Anatomy,
    sites: Sites,
    positions: Positions,
    prompts: Prompts,
    *,
    window: int = 1,
    default: Literal["all"] | None = None,
) -> Grid:
    """Lay out a sweep. ``default`` stands where neither a site nor ``positions`` says anything.

    Several sites make a first axis ``site`` and must have the same other axes; so
    ``["L*.resid_pre", "L*.attn_out", "L*.mlp_out"]`` is one sweep. With ``window=w`` a cell
    of the layer axis replaces the ``w`` layers around it (fewer at the ends): layers
    ``l - w // 2`` to ``l + (w - 1) // 2``, as in Meng et al. 2022 (arXiv:2202.05262).
    """
    given = [sites] if isinstance(sites, str | Site) else list(sites)
    if not given:
        raise SiteError("no sites were given; expected one such as 'L*.resid_pre'.")
    groups = [members(site) for site in given]
    names = tuple(" + ".join(str(site) for site in group) for group in groups)
    grids = [_group(anatomy, group, positions, prompts, window, default) for group in groups]
    if len(grids) == 1:
        return grids[0]
    if any(grid.axes != grids[0].axes for grid in grids):
        shapes = ", ".join(f"{name}: {_axes(g.axes)}" for name, g in zip(names, grids, strict=True))
        raise SiteError(
            f"sites of one sweep need the same axes; these have {shapes}. Patch them one by one."
        )
    cells = itertools.chain.from_iterable(grid.cells for grid in grids)
    return Grid((Axis("site", names), *grids[0].axes), tuple(cells))


def _axes(axes: Sequence[Axis]) -> str:
    return " × ".join(f"{axis.name} {len(axis)}" for axis in axes) or "a single cell"


def _group(
    anatomy: Anatomy,
    group: tuple[Site, ...],
    positions: Positions,
    prompts: Prompts,
    window: int,
    default: Positions,
) -> Grid:
    """One cell for each place on the axes that the group's wildcards make."""
    grids = [_one(anatomy, site, positions, prompts, window, default) for site in group]
    moving = [grid for grid in grids if grid.axes]
    axes = moving[0].axes if moving else ()
    if any(grid.axes != axes for grid in moving):
        shapes = ", ".join(f"{s}: {_axes(g.axes)}" for s, g in zip(group, grids, strict=True))
        raise SiteError(
            f"the members of a group move along the same axes, or stand still; these have {shapes}."
        )
    count = max(len(grid.cells) for grid in grids)
    parts = [grid.cells if grid.axes else grid.cells * count for grid in grids]
    return Grid(axes, tuple(tuple(itertools.chain(*cells)) for cells in zip(*parts, strict=True)))


def _one(
    anatomy: Anatomy,
    site: Site,
    positions: Positions,
    prompts: Prompts,
    window: int,
    default: Positions,
) -> Grid:
    singles = resolve(anatomy, [site])  # refused points and bad indices raise here
    if window < 1 or (window > 1 and (site.layer is None or site.layer.single)):
        raise RunError(
            f"window={window} slides over layers, and {str(site)!r} "
            + ("needs a window of at least 1." if window < 1 else "names one: write 'L*'.")
        )
    axes: list[Axis] = []
    cells: list[tuple[Site, ...]] = [(site,)]

    def add(name: str, options: Sequence[tuple[str, list[dict[str, int]]]]) -> None:
        nonlocal cells
        axes.append(Axis(name, tuple(label for label, _ in options)))
        cells = [
            tuple(s.at(**change) for s in cell for change in changes)
            for cell in cells
            for _, changes in options
        ]

    def each(part: str, numbers: Sequence[int]) -> list[tuple[str, list[dict[str, int]]]]:
        return [(str(n), [{part: n}]) for n in numbers]

    if site.layer is not None:
        layers = [key_of(one)[1] or 0 for one in singles]
        if site.layer.single:
            cells = [(site.at(layer=layers[0]),)]
        else:
            have = anatomy.spliced(site.point) if site.kind.spliced else range(anatomy.n_layers)
            add("layer", [(str(n), _around(n, window, have)) for n in layers])
    if site.head is not None and not site.head.single:
        heads = anatomy.n_kv_heads if "kv_head" in site.kind.axes else anatomy.n_heads
        add("head", each("head", site.head.expand(heads, "head")))
    if site.unit is not None and not site.unit.single:
        what = "feature" if site.kind.spliced else "neuron"
        add(what, each("unit", _units(anatomy, site, singles, what)))
    return _with_positions(axes, cells, _positions(site, positions, default), prompts)


def _around(layer: int, window: int, have: Collection[int]) -> list[dict[str, int]]:
    near = range(layer - window // 2, layer + (window + 1) // 2)
    return [{"layer": n} for n in near if n in have]


def _units(anatomy: Anatomy, site: Site, singles: Sequence[Site], what: str) -> tuple[int, ...]:
    """The neurons or features meant: the same in each layer.

    Raises:
        SiteError: dictionaries of different widths, all of whose features are meant.
    """
    assert site.unit is not None
    each = {site.unit.expand(units_of(anatomy, one), what) for one in singles}
    if len(each) > 1:
        raise SiteError(
            f"{str(site)!r} means {' and '.join(str(len(units)) for units in sorted(each))} features in "
            "different layers, which make no axis: sweep one layer at a time, or name the features."
        )
    return each.pop()


def _positions(site: Site, given: Positions, default: Positions) -> Positions:
    """The site's own position, or the one asked for, or the default of the sweep or the kind."""
    if site.position is not None:
        if given is not None:
            raise RunError(
                f"positions={given!r} was given, and {str(site)!r} names a position itself: "
                "leave one of them out."
            )
        return site.position
    if given is not None or default is not None:
        return default if given is None else given
    return "all" if site.kind.headed or site.unit is not None else "each"


def _with_positions(
    axes: list[Axis], cells: list[tuple[Site, ...]], positions: Positions, prompts: Prompts
) -> Grid:
    """Every cell at every position asked for."""
    options: list[tuple[str, int | str | None, Int[Tensor, " prompt"] | None]]
    kind = cells[0][0].kind
    if positions == "all":
        options = [("all", None, None)]
    elif "pos" not in kind.axes:
        raise RunError(
            f"{kind.name!r} has no position axis to patch at {positions!r}: use positions='all'."
        )
    elif positions == "each":
        options = _each(prompts)
    elif isinstance(positions, int | str):
        options = [(str(positions), positions, prompts.columns(positions))]
    elif positions:
        options = [(str(p), p, prompts.columns(p)) for p in positions]
    else:
        raise PromptError("positions=[] is empty; expected names or numbers, 'each' or 'all'.")
    single = positions == "all" or (isinstance(positions, int | str) and positions != "each")
    if not single:
        axes = [*axes, Axis("position", tuple(label for label, _, _ in options))]
    spots = tuple(
        tuple(Spot(site.at(position=position), columns) for site in cell)
        for cell in cells
        for _, position, columns in options
    )
    return Grid(tuple(axes), spots)


def _each(prompts: Prompts) -> list[tuple[str, int | str | None, Int[Tensor, " prompt"] | None]]:
    """Each column of the prompts: the same column in each row."""
    if prompts.clean.padded:
        warn(
            "these prompts differ in length, so a column is another word in each of them, and "
            "padding where some have ended: a patch there does nothing and dilutes the mean. "
            "Use named positions, such as positions=['subject', 'END'].",
        )
    width = prompts.clean.ids.shape[1]
    labels = _labels(prompts, width)
    return [(labels[i], None, torch.full((len(prompts),), i)) for i in range(width)]


def _labels(prompts: Prompts, width: int) -> tuple[str, ...]:
    """The column's token where all prompts agree on it, else its number."""
    if prompts.str_tokens is None:
        return tuple(str(i) for i in range(width))
    labels = []
    for column in range(width):
        seen = {row[column] for row in prompts.str_tokens}
        token = seen.pop().strip() if len(seen) == 1 else _name(prompts, column)
        labels.append(f"{column} {token}".strip())
    return tuple(labels)


def _name(prompts: Prompts, column: int) -> str:
    """The position name that every prompt puts in this column, as a label."""
    for name, where in prompts.positions.items():
        if bool((where == column).all()):
            return f"@{name}"
    return ""
