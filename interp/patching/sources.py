"""What is put in: the other run's values, zeros, a mean, another prompt's values, noise, a tensor.

A mapping from sites to tensors gives each site its own: means over a corpus, for example.

A source answers one question: which value stands at a given spot? Values of other
runs are read once, for all layers of a sweep, before the first cell runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from interp.engine.spots import Cell, Spot, Values
from interp.errors import RunError, SiteError, nearest
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.runs.edits import Edit, Noise
from interp.runs.execute import execute
from interp.runs.slices import read
from interp.sites import Site
from interp.token_batch import TokenBatch

__all__ = ["Direction", "Side", "Source", "edited_side", "pick_direction", "read_side", "values_of"]

Side = Literal["clean", "corrupted"]
Direction = Literal["denoise", "noise"]
Named = Literal["clean", "corrupted", "mean", "zero", "resample", "noise"]
Source = Named | Tensor | Mapping[Any, Tensor] | Edit | None
_NAMES = ("clean", "corrupted", "mean", "zero", "resample", "noise")


def edited_side(prompts: Prompts, direction: Direction) -> TokenBatch:
    """The run that is edited."""
    side = prompts.corrupted if direction == "denoise" else prompts.clean
    assert side is not None  # pick_direction has checked
    return side


def pick_direction(direction: Direction | None, source: Source, prompts: Prompts) -> Direction:
    """Which run is edited; checks that the source is not that run itself.

    Raises:
        RunError: an unknown word, a source that is the edited run, or no corrupted prompts.
    """
    named = source if isinstance(source, str) else None
    if named is not None and named not in _NAMES:
        raise RunError(
            f"source={named!r}; expected one of {', '.join(_NAMES)}, a tensor, or an edit such as "
            "interp.Noise(std=0.1)."
        )
    if isinstance(source, Mapping):
        _check_mapping(source)
    given = source is None or named is not None or isinstance(source, Tensor | Mapping)
    if not given and (isinstance(source, type) or not callable(source)):
        raise RunError(
            f"source={source!r}; expected one of {', '.join(_NAMES)}, a tensor, "
            "or an edit such as interp.Noise(std=0.1)."
        )
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
            "prompts, or source='zero', 'mean', 'resample' or 'noise'."
        )
    return direction


def read_side(source: Source, direction: Direction) -> Side | None:
    """The side whose activations the source needs; None if it needs none of these prompts'."""
    own: Side = "corrupted" if direction == "denoise" else "clean"
    if isinstance(source, Tensor | Mapping) or (
        isinstance(source, str) and source in ("zero", "mean")
    ):
        return None
    if source is None or (isinstance(source, str) and source in ("clean", "corrupted")):
        return "clean" if direction == "denoise" else "corrupted"
    return own


def values_of(
    model: Model,
    prompts: Prompts,
    cells: Sequence[Cell],
    *,
    direction: Direction,
    source: Source,
    reference: Prompts | None,
    seed: int,
    batch: int | Literal["auto"],
    known: Mapping[Site, Tensor] | None = None,
) -> Values:
    """A function from a spot to the value that is put there.

    Args:
        known: the whole tensors behind every cell on :func:`read_side`, if that has been run.
    """
    if isinstance(source, Tensor):
        return lambda spot: source
    if isinstance(source, Mapping):
        return _by_site(source, model.device)
    if source == "zero":
        return lambda spot: torch.zeros(())
    if source == "mean":
        return _mean(model, prompts, cells, reference, batch)
    own = edited_side(prompts, direction)
    side = prompts.clean if read_side(source, direction) == "clean" else prompts.corrupted
    assert side is not None  # pick_direction has checked
    values = known or _read_all(model, side, cells, batch)
    if source == "resample":
        return _resample(values, own, seed)
    if source == "noise" or callable(source):
        return _edited(values, own, None if source == "noise" else source, seed)
    return lambda spot: read(values[spot.site.whole], spot.site, spot.columns)


def _check_mapping(source: Mapping[Any, Tensor]) -> None:
    for site, value in source.items():
        Site.parse(site)
        if not isinstance(value, Tensor):
            raise RunError(
                f"source= maps {str(site)!r} to a {type(value).__name__}; expected a tensor that "
                "broadcasts to the site."
            )
    if not source:
        raise RunError("source= is an empty mapping; expected a tensor for each site.")


def _by_site(source: Mapping[Any, Tensor], device: torch.device) -> Values:
    """Each site's own tensor, whatever the position."""
    keys = {str(Site.parse(site)): site for site in source}  # TransformerLens's names, Sites

    def value(spot: Spot) -> Tensor:
        name = str(replace(spot.site, position=None))
        try:
            return source[keys.get(name, name)].to(device)
        except KeyError:
            raise SiteError(
                f"source= has no value for {name!r}; nearest: {nearest(name, keys)}."
            ) from None

    return value


def _read_all(
    model: Model, tokens: TokenBatch, cells: Sequence[Cell], batch: int | Literal["auto"]
) -> dict[Site, Tensor]:
    """The whole tensors behind every cell, from one run."""
    wanted = tuple(dict.fromkeys(spot.site.whole for cell in cells for spot in cell))
    cache = execute(
        model.anatomy,
        tokens.to(model.device),
        save=wanted,
        logits="none",
        rows_at_once=batch,
    ).cache
    return {site: cache[site] for site in wanted}


def _edited(values: Mapping[Site, Tensor], own: TokenBatch, edit: Edit | None, seed: int) -> Values:
    """An edit of the run's own values; None adds noise of the site's own standard deviation."""

    def value(spot: Spot) -> Tensor:
        whole = values[spot.site.whole]
        x = read(whole, spot.site, spot.columns)
        if edit is not None:
            return edit(x.clone())
        return Noise(float(_real(whole, spot.site, own).float().std()), seed=seed)(x)

    return value


def _real(x: Tensor, site: Site, tokens: TokenBatch) -> Tensor:
    """What stands at real tokens; of scores and patterns, what a real query may see."""
    mask = tokens.mask.to(x.device)
    if "query" not in site.kind.axes:
        return x[mask]
    seen = (mask[:, :, None] & mask[:, None, :]).tril()
    return x.movedim(1, -1)[seen]


def _mean(
    model: Model,
    prompts: Prompts,
    cells: Sequence[Cell],
    reference: Prompts | None,
    batch: int | Literal["auto"],
) -> Values:
    """The mean over the reference prompts: at named positions by name, else column by column."""
    if reference is None:
        raise RunError(
            "source='mean' needs reference=Prompts to average over; the evaluated prompts are "
            "never averaged unless you pass them yourself."
        )
    values = _read_all(model, reference.clean, cells, batch)
    by_column = not (
        prompts.clean.padded
        or reference.clean.padded
        or reference.clean.ids.shape[1] != prompts.clean.ids.shape[1]
    )

    def value(spot: Spot) -> Tensor:
        site = spot.site
        if site.position is not None:  # a named or numbered position: each at its own column
            own = reference.columns(site.position)
            return read(values[site.whole], site, own).mean(0)
        if not by_column:
            raise RunError(
                f"source='mean' averages column by column: the reference has {reference!r}, the "
                f"evaluated prompts are {prompts!r}. Give prompts of one length, or named positions."
            )
        where = None if spot.columns is None else spot.columns[:1].expand(len(reference))
        return read(values[site.whole], site, where).mean(0)

    return value


def _resample(values: Mapping[Site, Tensor], own: TokenBatch, seed: int) -> Values:
    """Each prompt gets the values of another prompt of the same run, drawn by seed."""
    if len(own) < 2:
        raise RunError("source='resample' needs at least two prompts to draw from.")
    if own.padded:
        raise RunError("source='resample' needs prompts of one length, so that columns agree.")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(own), generator=generator)
    donor = torch.empty_like(shuffled)
    donor[shuffled] = shuffled.roll(1)  # one cycle through all prompts: nobody draws itself

    def value(spot: Spot) -> Tensor:
        where = None if spot.columns is None else spot.columns[donor]
        return read(values[spot.site.whole][donor], spot.site, where)

    return value
