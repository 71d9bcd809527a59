"""What a block writes when its attention or its MLP writes something else: part of a block.

A head's output moves what attention adds by a rank-``d_head`` change (``Δz · W_O``), and the
rest of the block is its norm and its MLP: no projection of queries, keys and values, and no
attention, has to be computed again. Parallel blocks do not even need the MLP, and a neuron
moves the stream by ``Δ · W_out`` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.engine.base import Base
from interp.engine.replay import Edits, put, run_block
from interp.engine.spots import Spot, Values
from interp.engine.where import Picked, Tail, Where
from interp.sites import Site
from interp.taps.anatomy import Anatomy
from interp.taps.points import Key

__all__ = ["behind", "needed", "prove", "shortcut", "to_prove"]

#: What attention writes, and the residual stream right behind it.
_ATTENTION: Final = ("z", "attn_out", "resid_mid")
#: What the MLP writes.
_MLP: Final = ("mlp_post", "mlp_out")


#: Points for which this was proven on a model, by :func:`prove`.
_proven: WeakKeyDictionary[nn.Module, frozenset[str]] = WeakKeyDictionary()


def shortcut(anatomy: Anatomy, spots: Sequence[Spot]) -> Literal["attn", "mlp"] | None:
    """The half of a block whose output is all that these edits of it change; None if it is more,
    or if that is not proven for this model."""
    points = {spot.site.point for spot in spots}
    if not points or not points <= _proven.get(anatomy.hf, frozenset()):
        return None
    if points <= set(_ATTENTION):
        return "attn"
    return "mlp" if points <= set(_MLP) else None


def to_prove(anatomy: Anatomy) -> set[Key]:
    """Tensors of the base run that :func:`prove` needs."""
    points = [p for p in ("z", "attn_out", "mlp_post", "mlp_out") if p not in anatomy.refused]
    return {(point, layer) for point in points for layer in range(anatomy.n_layers)}


def prove(base: Base, tolerance: float) -> None:
    """Find out for which points the short way equals a run of the block, in every layer.

    An edit of each is made both ways on the last column. Where a family's block does more behind
    its branches than add them (OPT with its norms behind), they differ and the block is run.
    """
    anatomy = base.anatomy
    column = torch.full((len(base),), base.width - 1)
    where, held = Picked(column[None]), set()
    sizes = {"z": anatomy.d_head, "mlp_post": anatomy.d_mlp or 0}

    def ramp(spot: Spot) -> Tensor:
        return torch.linspace(-1.0, 1.0, sizes.get(spot.site.point, anatomy.d_model))

    # Such modules take more than what the norm before them gives.
    usual = anatomy.known and not anatomy.family.adds_residual
    for point in (*_ATTENTION, *_MLP) if usual else ():
        half: Literal["attn", "mlp"] = "attn" if point in _ATTENTION else "mlp"
        if point in anatomy.refused or (f"{half}_out", 0) not in base.seen:
            continue
        worst: list[float] = []
        for layer in range(anatomy.n_layers):
            edits = [[Spot(Site.parse(f"L{layer}.{point}"), column)]]
            x = where.take(base.resid[layer], 1)
            long = run_block(base, layer, x, where, edits, ramp)
            short = behind(base, layer, edits, ramp, where, half)
            worst.append(float((short - long).abs().max() / long.abs().max()))
        if all(one <= tolerance for one in worst):  # NaN is no proof
            held.add(point)
    _proven[anatomy.hf] = frozenset(held)


def needed(anatomy: Anatomy, spots: Sequence[Spot]) -> set[Key]:
    """Tensors of the base run that :func:`behind` starts from."""
    keys: set[Key] = set()
    for spot in spots:
        half = shortcut(anatomy, [spot])
        if half is not None:
            keys.add((f"{half}_out", spot.layer))
        if half is not None and spot.site.point in ("z", "mlp_post"):
            keys.add((spot.site.point, spot.layer))
    return keys


def behind(
    base: Base, layer: int, edits: Edits, values: Values, where: Where, half: Literal["attn", "mlp"]
) -> Float[Tensor, "row some d_model"]:
    """The residual stream behind a block at ``where``, for cells that edit what a half writes."""
    if half == "attn":
        return _behind_attention(base, layer, edits, values, where)
    stream = where.take(base.resid[layer + 1], 1).clone()
    for cell, spots in enumerate(edits):
        _, part = _cell(base, where, cell)
        stream[part] += _change_of_mlp(base, layer, spots, values, where, cell)
    return stream


def _change_of_mlp(
    base: Base, layer: int, spots: Sequence[Spot], values: Values, where: Where, cell: int
) -> Float[Tensor, "prompt some d_model"]:
    """What one cell changes of what the MLP adds: its neurons first, then the whole of it."""
    one, _ = _cell(base, where, cell)
    neurons = [spot for spot in spots if spot.site.point == "mlp_post"]
    written = [spot for spot in spots if spot.site.point == "mlp_out"]
    change: Any = 0.0
    if neurons:
        old = one.take(base.seen["mlp_post", layer], 1)
        new = old.clone()
        for spot in neurons:
            put(new, spot, values, where, cell, base.width)
        change = _down(base.anatomy, layer, new - old, neurons)
    if written:
        old = one.take(base.seen["mlp_out", layer], 1)
        new = old + change
        for spot in written:
            put(new, spot, values, where, cell, base.width)
        change = new - old
    return change


def _cell(base: Base, where: Where, cell: int) -> tuple[Where, slice]:
    """The columns and the rows of one cell of a stack."""
    rows = slice(cell * len(base), (cell + 1) * len(base))
    one = Picked(where.columns[cell : cell + 1]) if isinstance(where, Picked) else Tail(where.start)
    return one, rows


def _down(
    anatomy: Anatomy,
    layer: int,
    change: Float[Tensor, "prompt some d_mlp"],
    spots: Sequence[Spot],
) -> Float[Tensor, "prompt some d_model"]:
    """What some neurons' change moves the residual stream by."""
    down: Any = anatomy.blocks[layer].down
    rows = down.weight if type(down).__name__ == "Conv1D" else down.weight.T  # [d_mlp, d_model]
    n, chosen = rows.shape[0], set[int]()
    for spot in spots:
        unit = spot.site.unit
        chosen |= set(range(n) if unit is None else unit.expand(n, "neuron"))
    if len(chosen) < n:
        units = sorted(chosen)
        change, rows = change[..., units], rows[units]
    return change @ rows * anatomy.residual_multiplier


def _behind_attention(
    base: Base, layer: int, edits: Edits, values: Values, where: Where
) -> Float[Tensor, "row some d_model"]:
    resid, post = where.take(base.resid[layer], 1), where.take(base.resid[layer + 1], 1)
    added = where.take(base.seen["attn_out", layer], 1).clone()
    rows = len(base)
    for cell, spots in enumerate(edits):
        part = slice(cell * rows, (cell + 1) * rows)
        z = [spot for spot in spots if spot.site.point == "z"]
        if z:
            added[part] = _from_z(base, layer, z, values, where, cell, added[part])
        for spot in spots:
            if spot.site.point == "attn_out":
                put(added[part], spot, values, where, cell, base.width)
    if base.anatomy.parallel:
        return post + (added - where.take(base.seen["attn_out", layer], 1))
    mid = resid + added
    for cell, spots in enumerate(edits):
        for spot in spots:
            if spot.site.point == "resid_mid":
                own = mid[cell * rows : (cell + 1) * rows]
                put(own, spot, values, where, cell, base.width)
    return mid if base.anatomy.attention_only else mid + _mlp(base.anatomy, layer, mid)


def _from_z(
    base: Base,
    layer: int,
    spots: Sequence[Spot],
    values: Values,
    where: Where,
    cell: int,
    added: Float[Tensor, "prompt some d_model"],
) -> Float[Tensor, "prompt some d_model"]:
    """What attention adds to the residual stream when some heads write other values."""
    anatomy, block = base.anatomy, base.anatomy.blocks[layer]
    one, _ = _cell(base, where, cell)
    old = one.take(base.seen["z", layer], 1)
    new = old.clone()
    for spot in spots:
        put(new, spot, values, where, cell, base.width)
    o: Any = block.o
    if block.norm_after_attn:
        norm: Any = block.attn_branch
        return norm(o(new.flatten(-2))) * anatomy.residual_multiplier
    weight = o.weight if type(o).__name__ == "Conv1D" else o.weight.T  # [head * d_head, d_model]
    rows = weight.unflatten(0, (anatomy.n_heads, anatomy.d_head))
    heads = _heads(anatomy, spots)
    change = (new - old)[:, :, heads].flatten(-2) @ rows[heads].flatten(0, 1)
    return added + change * anatomy.residual_multiplier


def _heads(anatomy: Anatomy, spots: Sequence[Spot]) -> list[int]:
    """The heads that some spot edits."""
    chosen: set[int] = set()
    for spot in spots:
        head = spot.site.head
        chosen |= set(
            range(anatomy.n_heads) if head is None else head.expand(anatomy.n_heads, "head")
        )
    return sorted(chosen)


def _mlp(
    anatomy: Anatomy, layer: int, mid: Float[Tensor, "row some d_model"]
) -> Float[Tensor, "row some d_model"]:
    """What the MLP adds to the residual stream, from what the block's second norm reads."""
    block: Any = anatomy.blocks[layer]
    x = mid if block.ln2 is None else block.ln2(mid)
    if anatomy.family.mlp is None:  # the block's own code calls these two
        out = block.down(block.module.activation_fn(block.up(x)))
    else:
        out = block.mlp(x)
        out = out[0] if isinstance(out, tuple) else out
    if anatomy.family.mlp_norm is not None:
        out = block.mlp_branch(out)
    return out * anatomy.residual_multiplier if anatomy.residual_multiplier != 1.0 else out
