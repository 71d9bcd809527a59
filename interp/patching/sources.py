"""What is put in: the other run's values, zeros, a mean, another prompt's values, or a tensor.

A source answers one question: which edit stands in a given cell? Values of other
runs are read once, for all layers of a sweep, before the first cell runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import RunError
from interp.models.model import Model
from interp.patching.cells import Grid
from interp.prompts.prompts import Prompts
from interp.runs.edits import Edit, Replace, Zero
from interp.runs.execute import execute
from interp.runs.slices import read
from interp.sites import Site
from interp.token_batch import TokenBatch

__all__ = ["Direction", "Side", "Source", "pick_direction", "source_edits"]

Side = Literal["clean", "corrupted"]
Direction = Literal["denoise", "noise"]
Source = Literal["clean", "corrupted", "mean", "zero", "resample"] | Tensor | None
_NAMES = ("clean", "corrupted", "mean", "zero", "resample")


def pick_direction(direction: Direction | None, source: Source, prompts: Prompts) -> Direction:
    """Which run is edited; checks that the source is not that run itself.

    Raises:
        RunError: an unknown word, a source that is the edited run, or no corrupted prompts.
    """
    named = source if isinstance(source, str) else None
    if named is not None and named not in _NAMES:
        raise RunError(f"source={named!r}; expected one of {', '.join(_NAMES)}, or a tensor.")
    from_other_run = source is None or named in ("clean", "corrupted")
    if direction is None:
        direction = "denoise" if source is None or named == "clean" else "noise"
    if direction not in ("denoise", "noise"):
        raise RunError(
            f"direction={direction!r}; expected 'denoise' (the corrupted run gets clean values) "
            "or 'noise' (the reverse)."
        )
    run = "corrupted" if direction == "denoise" else "clean"
    if named == run:
        raise RunError(
            f"direction={direction!r} edits the {run} run, and source={named!r} is that run "
            "itself: nothing would change. Leave source out, or turn the direction round."
        )
    if prompts.corrupted is None and (from_other_run or direction == "denoise"):
        raise RunError(
            "these prompts have no corrupted side to patch with: give clean and corrupted "
            "prompts, or source='zero', 'mean' or 'resample'."
        )
    return direction


def source_edits(
    model: Model,
    prompts: Prompts,
    grid: Grid,
    *,
    direction: Direction,
    source: Source,
    reference: Prompts | None,
    seed: int,
    batch: int | Literal["auto"],
) -> Callable[[Site, Int[Tensor, " prompt"] | None], Edit]:
    """A function from a cell's site and columns to the edit that stands there."""
    if isinstance(source, Tensor):
        return lambda site, columns: Replace(source)
    if source == "zero":
        return lambda site, columns: Zero()
    if source == "mean":
        return _mean(model, prompts, grid, reference, batch)
    if source == "resample":
        return _resample(model, prompts, grid, direction, seed, batch)
    other = prompts.clean if direction == "denoise" else prompts.corrupted
    assert other is not None  # pick_direction has checked
    values = _read_all(model, other, grid, batch)
    return lambda site, columns: Replace(read(values[site.whole], site, columns))


def _read_all(
    model: Model, tokens: TokenBatch, grid: Grid, batch: int | Literal["auto"]
) -> dict[Site, Tensor]:
    """The whole tensors behind every cell, from one run."""
    wanted = tuple(dict.fromkeys(site.whole for site in grid.sites))
    cache = execute(
        model.anatomy,
        tokens.to(model.device),
        save=wanted,
        logits="none",
        rows_at_once=batch,
    ).cache
    return {site: cache[site] for site in wanted}


def _mean(
    model: Model,
    prompts: Prompts,
    grid: Grid,
    reference: Prompts | None,
    batch: int | Literal["auto"],
) -> Callable[[Site, Int[Tensor, " prompt"] | None], Edit]:
    """The mean over the reference prompts: at named positions by name, else column by column."""
    if reference is None:
        raise RunError(
            "source='mean' needs reference=Prompts to average over; the evaluated prompts are "
            "never averaged unless you pass them yourself."
        )
    values = _read_all(model, reference.clean, grid, batch)
    by_column = not (
        prompts.clean.padded
        or reference.clean.padded
        or reference.clean.ids.shape[1] != prompts.clean.ids.shape[1]
    )

    def edit(site: Site, columns: Int[Tensor, " prompt"] | None) -> Edit:
        if site.position is not None:  # a named or numbered position: each at its own column
            own = reference.columns(site.position)
            return Replace(read(values[site.whole], site, own).mean(0))
        if not by_column:
            raise RunError(
                f"source='mean' averages column by column: the reference has {reference!r}, the "
                f"evaluated prompts are {prompts!r}. Give prompts of one length, or named positions."
            )
        where = None if columns is None else columns[:1].expand(len(reference))
        return Replace(read(values[site.whole], site, where).mean(0))

    return edit


def _resample(
    model: Model,
    prompts: Prompts,
    grid: Grid,
    direction: Direction,
    seed: int,
    batch: int | Literal["auto"],
) -> Callable[[Site, Int[Tensor, " prompt"] | None], Edit]:
    """Each prompt gets the values of another prompt of the same run, drawn by seed."""
    own = prompts.corrupted if direction == "denoise" else prompts.clean
    assert own is not None
    if len(own) < 2:
        raise RunError("source='resample' needs at least two prompts to draw from.")
    if own.padded:
        raise RunError("source='resample' needs prompts of one length, so that columns agree.")
    values = _read_all(model, own, grid, batch)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(own), generator=generator)
    donor = torch.empty_like(shuffled)
    donor[shuffled] = shuffled.roll(1)  # one cycle through all prompts: nobody draws itself
    donor = donor.to(model.device)

    def edit(site: Site, columns: Int[Tensor, " prompt"] | None) -> Edit:
        where = None if columns is None else columns.to(donor.device)[donor]
        return Replace(read(values[site.whole][donor], site, where))

    return edit
