"""Path patching: a cell for each pair of senders and receivers.

``"L1.H0.z -> L2.H1.k"`` puts into the receiver's key what it would read if only what the
sender writes had changed: the direct path from one to the other, with all else frozen. Both
ends may be groups (``"L1.H0.z + L1.H3.z -> L2.H1.k"``) and may have wildcards, each an axis.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from interp.engine.paths import RECEIVERS, SENDERS, Path, half_of, received
from interp.engine.probe import why_no_paths
from interp.engine.spots import Cell, Spot, Values
from interp.engine.work import Work
from interp.errors import BudgetError, RunError, SiteError
from interp.models.model import Model
from interp.patching.cells import Grid, Positions, Sites, lay_out
from interp.patching.run import Way
from interp.prompts.prompts import Prompts
from interp.results import Axis
from interp.runs.edits import Edit, Replace
from interp.runs.execute import execute
from interp.runs.memory import as_text, available, elements_of
from interp.runs.plan import key_of
from interp.runs.slices import read
from interp.sites import POINTS, Edge, Site
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["PathGrid", "is_path", "lay_out_paths", "values_at_receivers"]


@dataclass(frozen=True)
class PathGrid:
    """Axes of the senders, then of the receivers, and a path for each place on them."""

    axes: tuple[Axis, ...]
    paths: tuple[Path, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """What the sweep patches in the end: the receivers."""
        return tuple(path.receivers for path in self.paths)

    @property
    def senders(self) -> tuple[Cell, ...]:
        return tuple(dict.fromkeys(path.senders for path in self.paths))


def is_path(sites: Sites) -> bool:
    """Whether these sites are paths; a list of both kinds is refused.

    Raises:
        SiteError: some of a list are paths and some are not.
    """
    given = [sites] if not isinstance(sites, Sequence) or isinstance(sites, str) else list(sites)
    kinds = {isinstance(site, Edge) or "->" in str(site) for site in given}
    if len(kinds) > 1:
        raise SiteError(
            f"paths and sites cannot be one sweep: {', '.join(map(str, given))}. "
            "Patch them in two calls."
        )
    return kinds == {True}


def lay_out_paths(
    anatomy: Anatomy, edges: str | Edge | Sequence[str | Edge], positions: Positions,
    prompts: Prompts, *, at_answer: bool = False,
) -> PathGrid:  # fmt: skip
    """Lay out a sweep over paths. ``positions`` are the receivers'; senders name their own.

    Args:
        at_answer: the metric reads the last token's logits only, so ``-> logits`` means those.

    Raises:
        SiteError: an end that does not write (sender) or read (receiver) the residual stream.
    """
    given = [edges] if isinstance(edges, str | Edge) else list(edges)
    grids = [_one(anatomy, str(edge), positions, prompts, at_answer=at_answer) for edge in given]
    if len(grids) == 1:
        return grids[0]
    if any(grid.axes != grids[0].axes for grid in grids):
        raise SiteError(
            f"the paths of one sweep need the same axes: {', '.join(map(str, given))} have not. "
            "Patch them one by one."
        )
    axis = Axis("path", tuple(" ".join(str(edge).split()) for edge in given))
    return PathGrid((axis, *grids[0].axes), tuple(path for grid in grids for path in grid.paths))


def _one(
    anatomy: Anatomy, edge: str, positions: Positions, prompts: Prompts, *, at_answer: bool
) -> PathGrid:
    ends = edge.split("->")
    if len(ends) != 2:
        raise SiteError(f"{edge!r} is not a path: expected 'L1.H0.z -> L2.H1.k'.")
    end = "@END" if at_answer and positions is None else ""
    final = f"L{anatomy.n_layers - 1}.resid_post"
    target = re.sub(r"\blogits\b(@\S+)?", lambda found: final + (found[1] or end), ends[1])
    senders = lay_out(anatomy, ends[0], None, prompts, default="all")
    receivers = lay_out(anatomy, target, positions, prompts, default="all")
    for grid, known, does in (
        (senders, SENDERS, "write to the residual stream"),
        (receivers, RECEIVERS, "read the residual stream"),
    ):
        for spot in itertools.chain.from_iterable(grid.cells):
            if spot.site.point not in known:
                raise SiteError(
                    f"{spot.site.point!r} in {edge!r} does not {does}; points that do: "
                    f"{', '.join(one for one in known if not POINTS[one].spliced)}."
                )
    _check_reach(anatomy, senders, edge)
    named = {axis.name for axis in senders.axes}
    axes = tuple(
        replace(axis, name=f"to {axis.name}") if axis.name in named else axis
        for axis in receivers.axes
    )
    paths = tuple(Path(a, b) for a in senders.cells for b in _again(receivers))
    return PathGrid((*senders.axes, *axes), paths)


def _check_reach(anatomy: Anatomy, senders: Grid, edge: str) -> None:
    """A path begins at one branch.

    Raises:
        SiteError: a sender is, or is read by, a cross-layer transcoder, which writes to several.
    """
    crossing = {key[1] for splice in anatomy.splices for key in splice.features[:-1]}
    read = ("mlp", "mlp.input", "ln2.normalized")
    for spot in itertools.chain.from_iterable(senders.cells):
        kind = spot.site.kind
        if kind.spliced and kind.host in read and key_of(spot.site)[1] in crossing:
            raise SiteError(
                f"{str(spot.site)!r} in {edge!r} writes to several layers through a cross-layer "
                "transcoder: no single path leads from it. Patch the site itself."
            )


def _again(grid: Grid) -> list[Cell]:
    """The receivers once more: each path's have values of their own."""
    return [tuple(replace(spot) for spot in cell) for cell in grid.cells]


def values_at_receivers(way: Way, paths: Sequence[Path], values: Values, work: Work) -> Values:
    """What stands at each receiver, by the engine or by runs with everything else frozen.

    ``work`` counts what that takes.

    Raises:
        BudgetError: the values of all receivers do not fit in memory.
        RunError: the model's residual stream is not the sum of its branches.
    """
    reason = why_no_paths(way.model.anatomy)
    if reason is not None:
        raise RunError(f"there are no direct paths to patch in {way.model.name}: {reason}.")
    made: dict[Spot, Tensor]
    _check_memory(way, paths)
    if way.slabs:
        made = received(way.slabs, paths, values, work)
    else:
        made = _received_plainly(way.model, way.tokens, paths, values, way.batch, work)
    return made.__getitem__


def _check_memory(way: Way, paths: Sequence[Path]) -> None:
    anatomy, width = way.model.anatomy, way.tokens.ids.shape[1]
    sites = (
        spot.site.at(position=None if spot.columns is None else -1)
        for path in paths
        for spot in path.receivers
    )
    size = next(anatomy.hf.parameters()).element_size() * len(way.tokens)
    needed = size * sum(elements_of(anatomy, site, width) for site in sites)
    free = available(way.tokens.ids.device)
    if needed > free:
        raise BudgetError(
            f"{len(paths)} paths need {as_text(needed)} for what their receivers hold, and "
            f"{as_text(free)} are free: give receivers a position ('... -> L2.H1.k@END'), or fewer "
            "senders or receivers in one call."
        )


def _received_plainly(
    model: Model,
    tokens: TokenBatch,
    paths: Sequence[Path],
    values: Values,
    batch: int | Literal["auto"],
    work: Work,
) -> dict[Spot, Tensor]:
    """The same by whole runs: every branch is frozen at its own value, but the senders'."""
    anatomy = model.anatomy
    branches = [f"L{n}.{kind}" for n in range(anatomy.n_layers) for kind in anatomy.branches]
    base = execute(anatomy, tokens, save=branches, logits="none", rows_at_once=batch).cache
    made: dict[Spot, Tensor] = {}
    frozen: dict[Cell, dict[str, Edit]] = {}
    for path in paths:
        if path.senders not in frozen:
            edits: dict[str, Edit] = {name: Replace(base[name]) for name in branches}
            frozen[path.senders] = edits | _sent(model, tokens, path.senders, values, batch)
        edits = frozen[path.senders]
        for sites, own in _reads(path.receivers, edits):
            cache = execute(
                anatomy, tokens, save=sites, edit=own, logits="none", rows_at_once=batch
            ).cache
            work.block_positions += anatomy.n_layers * tokens.ids.numel()
            for spot in path.receivers:
                if spot.site.whole in sites:
                    made[spot] = read(cache[spot.site.whole], spot.site, spot.columns).clone()
    return made


def _reads(receivers: Cell, edits: dict[str, Edit]) -> list[tuple[list[Site], dict[str, Edit]]]:
    """The runs that read the receivers: a branch is read where it alone is not frozen."""
    sites = list(dict.fromkeys(spot.site.whole for spot in receivers))
    branches = [site for site in sites if str(site) in edits]
    inside = [site for site in sites if site not in branches]
    runs = [([site], {k: v for k, v in edits.items() if k != str(site)}) for site in branches]
    return [*([(inside, edits)] if inside else []), *runs]


def _sent(
    model: Model, tokens: TokenBatch, senders: Cell, values: Values, batch: int | Literal["auto"]
) -> dict[str, Edit]:
    """What each edited branch writes, on the base run: each half of a block in a run of its own."""
    edits: dict[str, Edit] = {}
    halves: dict[str | None, list[Spot]] = {}
    for spot in senders:
        half = half_of(spot)
        halves.setdefault(half and f"L{spot.layer}.{half}_out", []).append(spot)
    for name, spots in halves.items():
        own: dict[str, Edit] = {}
        columns: dict[int | str, Tensor] = {}
        for i, spot in enumerate(spots):
            site = spot.site.at(position=None if spot.columns is None else f"spot{i}")
            if spot.columns is not None:
                columns[f"spot{i}"] = spot.columns
            own[str(site)] = Replace(values(spot))
        # Embeddings are saved whole, so that the frozen run has no named columns.
        whole = [str(spot.site.whole) for spot in spots]
        save = list(dict.fromkeys(whole)) if name is None else [name]
        cache = execute(
            model.anatomy, tokens, save=save, edit=own, logits="none", rows_at_once=batch,
            columns=columns.__getitem__,
        ).cache  # fmt: skip
        edits |= {site: Replace(cache[site]) for site in save}
    return edits
