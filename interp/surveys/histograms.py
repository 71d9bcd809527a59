"""``histograms``: how activations are distributed, without keeping any.

Neurons and dictionary features are judged by their distribution: how often they fire, whether they
are dead, whether they have one tail or two (Cunningham et al. 2023, arXiv:2309.08600; Bricken et al.
2023, "Towards Monosemanticity", feature density histograms). Bins widen as needed (:mod:`.bins`), so
nothing lies outside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import RunError, nearest
from interp.geometry.moments import summing_device
from interp.results import Provenance
from interp.sites import Site
from interp.store.rows import Rows
from interp.surveys.bins import Bins
from interp.surveys.histogram_result import Histograms
from interp.surveys.source import Source, expand, is_whole
from interp.surveys.survey import survey
from interp.surveys.units import Reading, Transform, pieces

__all__ = ["Histogram", "histograms"]

Scale = Literal["linear", "log"]
_SCALES: Final = ("linear", "log")


@dataclass(frozen=True, eq=False)
class _Line:
    """What is known of one site: a line for all its numbers, or for each unit."""

    bins: Bins
    zeros: Int[Tensor, " line"]
    positive: Int[Tensor, " line"]
    numbers: int  # in each line
    names: tuple[str, ...]
    units: int


@dataclass(frozen=True, eq=False)
class Histogram:
    """Histograms of some sites, as a plan for :func:`survey`; parameters as in :func:`histograms`."""

    sites: str | Site | Sequence[str | Site] | None = None
    bins: int = 128
    units: Literal["all"] | int | Iterable[int] | None = None
    scale: Scale = "linear"
    of: Literal["value", "norm"] = "value"
    transform: Transform | None = None
    readings: tuple[Reading, ...] = ()

    def __post_init__(self) -> None:
        if self.scale not in _SCALES or self.of not in ("value", "norm"):
            raise RunError(
                f"scale={self.scale!r}, of={self.of!r}; expected scale='linear' or 'log' (nearest: "
                f"{nearest(str(self.scale), _SCALES, n=1)}) and of='value' or 'norm'."
            )
        if isinstance(self.units, str) and self.units != "all":
            raise RunError(
                f"units={self.units!r}; expected 'all' for a histogram of each unit, numbers of units, or "
                "None for one of all numbers together."
            )
        if not is_whole(self.bins, least=4):
            raise RunError(f"bins={self.bins!r}; expected a whole number, at least 4.")

    def on(self, sites: Sequence[str]) -> Histogram:
        units = None if isinstance(self.units, str) else self.units
        given = [self.sites] if isinstance(self.sites, str | Site) else self.sites
        asked = [
            name if _is_part(one) else whole
            for one in (sites if given is None else given)
            for name, whole in ((str(one), w) for w in expand(one, sites))
        ]
        readings = tuple(
            Reading.of(site, norm=self.of == "norm", transform=self.transform, units=units).on(
                sites
            )
            for site in dict.fromkeys(asked)
        )
        return replace(self, readings=readings)

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reading.whole for reading in self.readings))

    def call(self) -> dict[str, Any]:
        units = (
            self.units
            if self.units is None or isinstance(self.units, str | int)
            else list(self.units)
        )
        return {
            "verb": "histograms", "sites": [reading.site for reading in self.readings],
            "bins": self.bins, "units": units, "scale": self.scale, "of": self.of,
            "transform": self.readings[0].call["transform"],
        }  # fmt: skip

    def update(self, state: tuple[_Line, ...] | None, rows: Rows) -> tuple[_Line, ...]:
        lines = state or tuple(self._start(reading, rows) for reading in self.readings)
        return tuple(
            self._counted(reading, line, rows)
            for reading, line in zip(self.readings, lines, strict=True)
        )

    def _start(self, reading: Reading, rows: Rows) -> _Line:
        x = reading(rows.take(slice(0, 1)))
        units = x.shape[1]
        each = self.units is not None
        names = reading.names(rows, units) if each else (reading.site,)
        none = torch.zeros(len(names), dtype=torch.int64, device=summing_device(x))
        return _Line(
            Bins.empty(len(names), self.bins, summing_device(x)), none, none, 0, names, units
        )

    def _counted(self, reading: Reading, line: _Line, rows: Rows) -> _Line:
        for part in pieces(rows, line.units):
            x = reading(part)
            x = x if self.units is not None else x.flatten()[:, None]
            x = x.to(line.zeros.device)
            nonzero = x != 0
            if self.scale == "log":
                bins = line.bins.with_numbers(
                    x.double().abs().masked_fill(~nonzero, 1.0).log10(), nonzero
                )
            else:
                bins = line.bins.with_numbers(x)
            line = replace(
                line, bins=bins, zeros=line.zeros + (~nonzero).sum(0),
                positive=line.positive + (x > 0).sum(0), numbers=line.numbers + len(x),
            )  # fmt: skip
        return line

    def result(self, state: tuple[_Line, ...], provenance: Provenance) -> Histograms:
        joined = {
            f.name: torch.cat([getattr(line.bins, f.name) for line in state]).cpu()
            for f in fields(Bins)
        }
        numbers = [line.numbers for line in state for _ in line.names]
        return Histograms(
            names=tuple(name for line in state for name in line.names),
            scale=self.scale, of=self.of,
            **joined,
            zeros=torch.cat([line.zeros for line in state]).cpu(),
            positive=torch.cat([line.positive for line in state]).cpu(),
            numbers=torch.tensor(numbers),
            n_tokens=int(provenance.call["tokens"]),
            provenance=provenance,
        )  # fmt: skip


def histograms(
    source: Source | Any,
    sites: str | Site | Sequence[str | Site] | None = None,
    *,
    bins: int = 128,
    units: Literal["all"] | int | Iterable[int] | None = None,
    scale: Scale = "linear",
    of: Literal["value", "norm"] = "value",
    transform: Transform | None = None,
    tokens: int | None = None,
    size: int = 4096,
    progress: bool | None = None,
) -> Histograms:
    """How the activations of sites, or of each unit of them, are distributed over a source.

    >>> found = histograms(store, "L*.mlp_post", units="all")               # doctest: +SKIP
    >>> found.to_frame(); found.plot_density()                              # doctest: +SKIP

    Counts are exact and nothing lies outside the bins. Kept: 8 bytes for each bin and line.

    Args:
        source: an ActivationStore, ``interp.stream(...)``, or an iterable of Rows.
        sites: patterns, or parts (``"L2.mlp_post.N5,77"``); None: all that the source has.
        bins: at most so many for each line; more than half of them lie within its range.
        units: None makes one line of all numbers of a site, ``"all"`` a line for each unit, numbers a line
            for each of those.
        scale: ``"linear"``, or ``"log"``: bins of log10 |activation|, zeros counted apart.
        of: ``"norm"`` for the length of each head's or the whole site's vector.
        transform: rows [row, ...] → [row, unit], such as a dictionary's encode.
        tokens, size, progress: as in :func:`survey`.

    Raises:
        SiteError, RunError: as in :func:`survey`; a transform that does not fit.
    """
    plan = Histogram(sites, bins, units, scale, of, transform)
    (result,) = survey(source, [plan], tokens=tokens, size=size, progress=progress)
    return result


def _is_part(site: str | Site) -> bool:
    named = Site.parse(site)
    return named.head is not None or named.unit is not None
