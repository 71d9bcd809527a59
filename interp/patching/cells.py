"""The cells of a sweep: one axis for each wildcard, one site for each cell."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interp.errors import PromptError, RunError, SiteError
from interp.prompts.prompts import Prompts
from interp.results import Axis
from interp.runs.plan import resolve
from interp.sites import Site
from interp.taps.anatomy import Anatomy

__all__ = ["Grid", "Positions", "lay_out"]

#: "each" column, "all" at once, one named or numbered position, or several.
Positions = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class Grid:
    """Axes, and a site for each cell in row-major order.

    ``column`` is set where the position axis counts columns of the prompts: the cell's
    position is then a column, which means the same in each row.
    """

    axes: tuple[Axis, ...]
    sites: tuple[Site, ...]
    columns: tuple[int | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)


def lay_out(
    anatomy: Anatomy,
    sites: str | Site | Sequence[str | Site],
    positions: Positions,
    prompts: Prompts,
) -> Grid:
    """Lay out a sweep.

    Several sites make a first axis ``site`` and must have the same other axes; so
    ``["L*.resid_pre", "L*.attn_out", "L*.mlp_out"]`` is one sweep.
    """
    given = [sites] if isinstance(sites, str | Site) else list(sites)
    if not given:
        raise SiteError("no sites were given; expected one such as 'L*.resid_pre'.")
    grids = [_one(anatomy, Site.parse(site), positions, prompts) for site in given]
    if len(grids) == 1:
        return grids[0]
    if any(grid.axes != grids[0].axes for grid in grids):
        shapes = ", ".join(f"{s!s}: {_axes(g)}" for s, g in zip(given, grids, strict=True))
        raise SiteError(
            f"sites of one sweep need the same axes; these have {shapes}. Patch them one by one."
        )
    names = tuple(str(Site.parse(site)) for site in given)
    return Grid(
        (Axis("site", names), *grids[0].axes),
        tuple(itertools.chain.from_iterable(grid.sites for grid in grids)),
        tuple(itertools.chain.from_iterable(grid.columns for grid in grids)),
    )


def _axes(grid: Grid) -> str:
    return " × ".join(f"{axis.name} {len(axis)}" for axis in grid.axes) or "a single cell"


def _one(anatomy: Anatomy, site: Site, positions: Positions, prompts: Prompts) -> Grid:
    resolve(anatomy, [site])  # refused points and bad indices raise here
    axes: list[Axis] = []
    choices: list[list[Callable[[Site], Site]]] = []

    def add(name: str, part: str, numbers: Sequence[int]) -> None:
        axes.append(Axis(name, tuple(str(n) for n in numbers)))
        choices.append([lambda s, n=n: s.at(**{part: n}) for n in numbers])  # type: ignore[misc]

    if site.layer is not None and not site.layer.single:
        add("layer", "layer", site.layer.expand(anatomy.n_layers, "layer"))
    elif site.layer is not None:
        site = site.at(layer=site.layer.expand(anatomy.n_layers, "layer")[0])
    if site.head is not None and not site.head.single:
        heads = anatomy.n_kv_heads if "kv_head" in site.kind.axes else anatomy.n_heads
        add("head", "head", site.head.expand(heads, "head"))
    if site.unit is not None and not site.unit.single:
        add("neuron", "unit", site.unit.expand(anatomy.d_mlp or 0, "neuron"))
    cells = [site]
    for options in choices:
        cells = [change(cell) for cell in cells for change in options]
    return _with_positions(tuple(axes), cells, _positions(site, positions), prompts)


def _positions(site: Site, given: Positions) -> Positions:
    """The site's own position, or the one asked for, or the kind's default."""
    if site.position is not None:
        if given is not None:
            raise RunError(
                f"positions={given!r} was given, and {str(site)!r} names a position itself: "
                "leave one of them out."
            )
        return site.position
    if given is not None:
        return given
    return "all" if site.kind.headed or site.unit is not None else "each"


def _with_positions(
    axes: tuple[Axis, ...], cells: list[Site], positions: Positions, prompts: Prompts
) -> Grid:
    if positions == "all":
        return Grid(axes, tuple(cells), (None,) * len(cells))
    if "pos" not in cells[0].kind.axes:
        raise RunError(
            f"{cells[0].point!r} has no position axis to patch at {positions!r}: use positions='all'."
        )
    if positions == "each":
        width = prompts.clean.ids.shape[1]
        if prompts.clean.padded:
            warnings.warn(
                "these prompts differ in length, so a column is another word in each of them, and "
                "padding where some have ended: a patch there does nothing and dilutes the mean. "
                "Use named positions, such as positions=['subject', 'END'].",
                stacklevel=4,
            )
        axis = Axis("position", _labels(prompts, width))
        sites = tuple(cell for cell in cells for _ in range(width))
        return Grid((*axes, axis), sites, tuple(range(width)) * len(cells))
    if isinstance(positions, int | str):
        prompts.columns(positions)  # an unknown name raises here
        return Grid(axes, tuple(c.at(position=positions) for c in cells), (None,) * len(cells))
    if not positions:
        raise PromptError("positions=[] is empty; expected names or numbers, 'each' or 'all'.")
    for position in positions:
        prompts.columns(position)
    axis = Axis("position", tuple(str(p) for p in positions))
    sites = tuple(cell.at(position=p) for cell in cells for p in positions)
    return Grid((*axes, axis), sites, (None,) * len(sites))


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
