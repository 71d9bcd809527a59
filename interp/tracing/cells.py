"""What is restored: a state, or a window of MLP or attention outputs, at one token of each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.engine.spots import Cell, Spot
from interp.errors import RunError
from interp.results import Axis
from interp.runs.plan import resolve
from interp.sites import Site
from interp.taps.anatomy import Anatomy

__all__ = ["KINDS", "Kind", "TraceGrid", "default_window", "lay_out_trace"]

Kind = Literal["states", "mlp", "attn"]

#: The site that each kind of panel restores.
KINDS: Final[dict[str, str]] = {"states": "resid_post", "mlp": "mlp_out", "attn": "attn_out"}


class TraceGrid:
    """Axes ``kind``, ``layer`` and ``position``, and a cell for each place in row-major order.

    Attributes:
        severed: the spots which hold the corrupted run's value, not the clean one's.
    """

    def __init__(self, axes: tuple[Axis, ...]) -> None:
        self.axes = axes
        self.cells: list[Cell] = []
        self.severed: set[Spot] = set()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)


def default_window(n_layers: int) -> int:
    """Meng et al.'s 10 of 48 layers, at this model's depth."""
    return max(1, round(n_layers * 10 / 48))


def lay_out_trace(
    anatomy: Anatomy,
    columns: Sequence[Int[Tensor, " row"]],
    labels: Sequence[str],
    *,
    kinds: Sequence[str],
    sever: Sequence[str],
    window: int,
) -> TraceGrid:
    """Lay out a trace.

    States are restored one layer at a time; ``mlp`` and ``attn`` in windows of layers
    ``l - window // 2`` to ``l + ⌈window / 2⌉ - 1``, fewer at the ends. In a severed panel the MLPs (or
    attention) of all later layers are held, at the restored token, at what the corrupted run has.

    Raises:
        RunError: an unknown kind, or a window that is no positive number.
        SiteError: the model lacks a site.
    """
    _check(kinds, sever, window)
    panels: list[tuple[str, str, str | None]] = []
    for kind in kinds:
        panels.append((kind, KINDS[kind], None))
        if kind == "states":
            panels += [(f"states, {part} severed", KINDS[kind], KINDS[part]) for part in sever]
    layers = range(anatomy.n_layers)
    points = dict.fromkeys(p for _, point, cut in panels for p in (point, cut) if p is not None)
    resolve(anatomy, [f"L*.{point}" for point in points])  # what is refused raises here
    grid = TraceGrid((
        Axis("kind", tuple(name for name, _, _ in panels)),
        Axis("layer", tuple(str(layer) for layer in layers)),
        Axis("position", tuple(labels)),
    ))  # fmt: skip
    for _, point, cut in panels:
        for layer in layers:
            for where in columns:
                own = _around(layer, 1 if point == "resid_post" else window, len(layers))
                cell = [Spot(_at(point, i), where) for i in own]
                if cut is not None:
                    held = [Spot(_at(cut, i), where) for i in range(layer + 1, len(layers))]
                    grid.severed |= set(held)
                    cell += held
                grid.cells.append(tuple(cell))
    return grid


@cache
def _at(point: str, layer: int) -> Site:
    return Site.parse(f"L{layer}.{point}@here")


def _around(layer: int, window: int, n_layers: int) -> range:
    return range(max(0, layer - window // 2), min(n_layers, layer + (window + 1) // 2))


def _check(kinds: Sequence[str], sever: Sequence[str], window: int) -> None:
    for word, given, known in (("kinds", kinds, tuple(KINDS)), ("sever", sever, ("mlp", "attn"))):
        bad = [one for one in given if one not in known]
        if bad or len(set(given)) != len(given):
            raise RunError(f"{word}={list(given)}; expected some of {', '.join(known)}, each once.")
    if not kinds:
        raise RunError("kinds is empty; expected some of states, mlp, attn.")
    if sever and "states" not in kinds:
        raise RunError("sever= acts on restored states: add 'states' to kinds.")
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise RunError(f"window={window!r}; expected a positive number of layers, such as 10.")


def columns_of(first: Int[Tensor, " row"], last: Int[Tensor, " row"]) -> list[Int[Tensor, " row"]]:
    """The column of each real position 0, 1, ... in each row; the last one's where a row has ended."""
    longest = int((last - first).max()) + 1
    return [torch.minimum(first + i, last) for i in range(longest)]
