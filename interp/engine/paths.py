"""Direct paths: what a receiver reads when only what a sender writes has changed.

A sender is edited on the base run; what its attention or MLP then adds to the residual stream
differs by Δ. A receiver reads the residual stream with that Δ in it and with every other
component as in the base run, its own norm computed anew. What it then holds is the value for
an ordinary patch of the receiver.

Sources: Wang et al. 2022 (arXiv:2211.00593, §3.1 and Appendix B); Goldowsky-Dill et al. 2023
(arXiv:2304.05969, §3), whose treeification freezes MLPs too, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.base import Base
from interp.engine.kernels import replay_kernels
from interp.engine.replay import put, read_block
from interp.engine.slabs import Slab
from interp.engine.spots import Cell, Spot, Values
from interp.engine.where import Tail
from interp.engine.work import Work
from interp.runs.slices import read

__all__ = ["RECEIVERS", "SENDERS", "Path", "half_of", "reaches", "received"]

Half = Literal["attn", "mlp"]
_IN_ATTENTION: Final = ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z", "result")


def _shown(hosts: Sequence[str], half: Half) -> dict[str, Half | None]:
    """Features and errors of dictionaries at some points of a half."""
    names = [f"{host}.{what}" for host in hosts for what in ("features", "error")]
    return {name if name != "mlp.features" else "mlp": half for name in names}


#: Points that write to the residual stream, through their block's attention or MLP or alone.
SENDERS: Final[dict[str, Half | None]] = {
    **dict.fromkeys((*_IN_ATTENTION, "attn_out"), "attn"),
    **dict.fromkeys(("mlp_pre", "mlp_post", "mlp_out"), "mlp"),
    "embed": None, "pos_embed": None,
    **_shown(("attn.input", "ln1.normalized", "z", "attn_out"), "attn"),
    **_shown(("mlp.input", "ln2.normalized", "mlp_pre", "mlp_post", "mlp_out", "mlp"), "mlp"),
}  # fmt: skip
#: Points that read it: inside a block's attention or MLP, or the stream itself.
RECEIVERS: Final[dict[str, Half | None]] = {
    **dict.fromkeys(("ln1.scale", "ln1.normalized", "attn.input"), "attn"),
    **dict.fromkeys((*_IN_ATTENTION, "attn_out"), "attn"),
    **dict.fromkeys(("resid_mid", "ln2.scale", "ln2.normalized", "mlp.input"), "mlp"),
    **dict.fromkeys(("mlp_pre", "mlp_post", "mlp_out"), "mlp"),
    "resid_pre": None, "resid_post": None,
    **_shown(("attn.input", "ln1.normalized", "z", "attn_out"), "attn"),
    **_shown(("mlp.input", "ln2.normalized", "mlp_pre", "mlp_post", "mlp_out", "mlp"), "mlp"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Path:
    """Senders that are edited together, and receivers that take what reaches them together."""

    senders: Cell
    receivers: Cell


def half_of(spot: Spot) -> Half | None:
    """The half of its block through which a sender writes; None for an embedding."""
    return SENDERS[spot.site.point]


def reaches(sender: Spot, receiver: Spot, *, parallel: bool) -> bool:
    """Whether what the sender writes stands in the stream that the receiver reads."""
    point = receiver.site.point
    if point == "resid_post":
        return sender.layer <= receiver.layer
    if sender.layer != receiver.layer:
        return sender.layer < receiver.layer
    return half_of(sender) == "attn" and RECEIVERS[point] == "mlp" and not parallel


@torch.no_grad()
def received(
    slabs: Sequence[Slab], paths: Sequence[Path], values: Values, work: Work
) -> dict[Spot, Tensor]:
    """What each receiver holds when only its senders have changed, for all prompts."""
    parts: list[dict[Spot, Tensor]] = []
    for slab in slabs:
        senders, ours = slab.cut([path.senders for path in paths], values)
        with replay_kernels(slab.base.anatomy):
            parts.append(_received(slab, paths, senders, ours, work))
    return {spot: torch.cat([part[spot] for part in parts]) for spot in parts[0]}


def _received(
    slab: Slab, paths: Sequence[Path], senders: Sequence[Cell], values: Values, work: Work
) -> dict[Spot, Tensor]:
    base = slab.base
    written = _written(base, senders, values, work)
    wanted: dict[tuple[int, Half | None, frozenset[Spot]], list[tuple[int, Spot]]] = {}
    for number, path in enumerate(paths):
        for spot in path.receivers:
            heard = frozenset(
                s for s in senders[number] if reaches(s, spot, parallel=base.anatomy.parallel)
            )
            key = (spot.layer, RECEIVERS[spot.site.point], heard)
            wanted.setdefault(key, []).append((number, spot))
    out: dict[Spot, Tensor] = {}
    blocks: dict[tuple[int, Half | None], list[frozenset[Spot]]] = {}
    for layer, half, heard in wanted:
        blocks.setdefault((layer, half), []).append(heard)
    for (layer, half), sets in blocks.items():
        step = work.cells(len(base) * base.width)
        for low in range(0, len(sets), step):
            some = sets[low : low + step]
            spots = [[spot for _, spot in wanted[layer, half, heard]] for heard in some]
            changes = torch.cat([_sum(written, heard, base) for heard in some])
            points = tuple(dict.fromkeys(s.site.point for group in spots for s in group))
            seen = _read(base, layer, half, changes, points)
            for place, group in enumerate(spots):
                rows = slice(place * len(base), (place + 1) * len(base))
                for spot in group:
                    own = spot.rows(slab.rows)
                    out[spot] = read(seen[spot.site.point][rows], spot.site, own.columns).clone()
            work.block_positions += changes.shape[0] * base.width
    return out


def _sum(
    written: dict[Spot, Tensor], heard: frozenset[Spot], base: Base
) -> Float[Tensor, "prompt pos d_model"]:
    """What several senders change together. Senders of one half share their Δ (counted once)."""
    changes = {id(written[spot]): written[spot] for spot in heard}
    return sum(changes.values(), torch.zeros_like(base.resid[0]))


def _read(
    base: Base,
    layer: int,
    half: Half | None,
    changes: Float[Tensor, "row pos d_model"],
    points: Sequence[str],
) -> dict[str, Tensor]:
    """What a block's points hold when the stream that they read is changed."""
    n = changes.shape[0] // len(base)
    x = Tail(0, n).take(base.resid[layer], 1)
    if half is None:
        after = Tail(0, n).take(base.resid[layer + 1], 1)
        return {point: (x if point == "resid_pre" else after) + changes for point in points}
    if half == "mlp" and not base.anatomy.parallel:
        return read_block(base, layer, x, [], _nothing, points, added=changes)
    return read_block(base, layer, x + changes, [], _nothing, points)


def _written(
    base: Base, cells: Sequence[Cell], values: Values, work: Work
) -> dict[Spot, Float[Tensor, "prompt pos d_model"]]:
    """How each sender changes what is added to the residual stream.

    Senders of one cell in one half of a block are edited together and share their Δ.
    """
    out: dict[Spot, Tensor] = {}
    halves: dict[tuple[int, Half], dict[Cell, None]] = {}
    for cell in cells:
        own: dict[tuple[int, Half], list[Spot]] = {}
        for spot in cell:
            half = half_of(spot)
            if half is None:
                out[spot] = _embedded(base, spot, values)
            else:
                own.setdefault((spot.layer, half), []).append(spot)
        for key, spots in own.items():
            halves.setdefault(key, {})[tuple(spots)] = None
    for (layer, half), distinct in halves.items():
        groups = list(distinct)
        point = "attn_out" if half == "attn" else "mlp_out"
        step = work.cells(len(base) * base.width)
        for low in range(0, len(groups), step):
            some = [(), *groups[low : low + step]]  # the first is the base's own
            x = Tail(0, len(some)).take(base.resid[layer], 1)
            seen = read_block(base, layer, x, some, values, [point])[point]
            added = seen.unflatten(0, (len(some), len(base)))
            for group, change in zip(some[1:], added[1:] - added[0], strict=True):
                out |= dict.fromkeys(group, change)
            work.block_positions += x.shape[0] * base.width
    return out


def _embedded(base: Base, spot: Spot, values: Values) -> Float[Tensor, "prompt pos d_model"]:
    old = base.seen[spot.site.point, None].expand_as(base.resid[0])
    new = old.clone()
    put(new, spot, values, Tail(0), 0, base.width)
    return new - old


def _nothing(spot: Spot) -> Tensor:
    raise AssertionError(f"no edit was asked for, but {spot.site} was")
