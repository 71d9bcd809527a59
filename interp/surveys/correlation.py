"""``correlation``: which units of one site go together with which of another?

Pearson's r between each unit of ``a`` and each of ``b`` over the tokens of a corpus, as used to match
neurons and features across layers, models and dictionaries (Li et al. 2016, arXiv:1511.07543;
Gurnee et al. 2024, arXiv:2401.12181). Among millions of pairs some are large by chance, and tokens of
one document are not independent. So the same pass pairs each token of ``a`` with a token of another
document in ``b``, ``shift`` rows earlier: the series keep their own structure, and only what links them
is gone. What is found there is what chance gives. In texts of one template it is nearly as much as
the finding: whatever follows the position goes together with whatever else does.

Sums are merged chunk by chunk around their own means, in float64 (:mod:`interp.geometry.moments`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import BudgetError, RunError, warn
from interp.geometry.moments import Cross, summing_device
from interp.results import Provenance
from interp.runs.memory import as_text, available
from interp.sites import Site
from interp.store.rows import Rows
from interp.surveys.correlation_result import Correlation
from interp.surveys.source import Source, is_whole
from interp.surveys.survey import survey
from interp.surveys.units import Reading, Transform, pieces

__all__ = ["Correlate", "correlation"]

_LARGE = 2**30


@dataclass(frozen=True, eq=False)
class _State:
    paired: Cross | None
    chance: Cross | None
    earlier: Float[Tensor, "row b"]
    documents: Int[Tensor, " row"]
    names: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Correlate:
    """Correlations of two sites, as a plan for :func:`survey`; parameters as in :func:`correlation`."""

    a: str | Site
    b: str | Site
    a_units: int | Iterable[int] | None = None
    b_units: int | Iterable[int] | None = None
    of: str = "value"
    a_transform: Transform | None = None
    b_transform: Transform | None = None
    shift: int = 512
    readings: tuple[Reading, ...] = ()

    def __post_init__(self) -> None:
        if self.of not in ("value", "norm") or not is_whole(self.shift, least=1):
            raise RunError(
                f"of={self.of!r}, shift={self.shift!r}; expected 'value' or 'norm', and a whole number "
                "from 1 row up."
            )

    def on(self, sites: Sequence[str]) -> Correlate:
        norm = self.of == "norm"
        given = ((self.a, self.a_units, self.a_transform), (self.b, self.b_units, self.b_transform))
        readings = tuple(
            Reading.of(site, norm=norm, units=units, transform=transform).on(sites)
            for site, units, transform in given
        )
        return replace(self, readings=readings)

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reading.whole for reading in self.readings))

    def call(self) -> dict[str, Any]:
        a, b = (reading.call for reading in self.readings)
        return {"verb": "correlation", "a": a, "b": b, "of": self.of, "shift": self.shift}

    def update(self, state: _State | None, rows: Rows) -> _State:
        if state is None:
            state = self._start(rows)
        for part in pieces(rows, max(map(len, state.names))):
            state = self._step(state, part)
        return state

    def _start(self, rows: Rows) -> _State:
        first = rows.take(slice(0, 1))
        a, b = (reading(first) for reading in self.readings)
        _fits(a.shape[1], b.shape[1], summing_device(a))
        names = tuple(
            reading.names(rows, x.shape[1])
            for reading, x in zip(self.readings, (a, b), strict=True)
        )
        b = b.to(summing_device(b), torch.float64)
        documents = torch.zeros(0, dtype=torch.int64, device=b.device)
        return _State(None, None, b[:0], documents, names)  # type: ignore[arg-type]

    def _step(self, state: _State, rows: Rows) -> _State:
        a, b = (reading(rows) for reading in self.readings)
        a, b = (x.to(summing_device(x), torch.float64) for x in (a, b))
        own = rows.document.to(a.device, torch.int64)
        b_all, documents = torch.cat([state.earlier, b]), torch.cat([state.documents, own])
        start = max(0, self.shift - len(state.earlier))  # the first row that has a partner
        partners = slice(len(state.earlier) + start - self.shift, len(b_all) - self.shift)
        chance = state.chance
        if start < len(b):
            other = documents[partners] != own[start:]
            chance = _joined(chance, a[start:][other], b_all[partners][other])
        return replace(
            state, paired=_joined(state.paired, a, b), chance=chance,
            earlier=b_all[-self.shift :].clone(), documents=documents[-self.shift :].clone(),
        )  # fmt: skip

    def result(self, state: _State, provenance: Provenance) -> Correlation:
        assert state.paired is not None  # a survey has at least one row
        null = torch.full((len(state.names[0]),), torch.nan)
        if state.chance is not None:
            sizes = state.chance.pearson().abs()
            null = sizes.nan_to_num(-1.0).amax(1).cpu().float()
            null = null.masked_fill(null < 0, torch.nan)
        return Correlation(
            a=self.readings[0].site, b=self.readings[1].site,
            a_names=state.names[0], b_names=state.names[1],
            values=state.paired.pearson().float().cpu(), null=null,
            n_tokens=state.paired.a.count,
            n_null=0 if state.chance is None else state.chance.a.count,
            same=self.readings[0].as_read == self.readings[1].as_read,
            provenance=provenance,
        )  # fmt: skip


def correlation(
    source: Source | Any,
    a: str | Site,
    b: str | Site,
    *,
    a_units: int | Iterable[int] | None = None,
    b_units: int | Iterable[int] | None = None,
    of: str = "value",
    a_transform: Transform | None = None,
    b_transform: Transform | None = None,
    shift: int = 512,
    tokens: int | None = None,
    size: int = 4096,
    progress: bool | None = None,
) -> Correlation:
    """Pearson's r over tokens between each unit of one site and each of another, beside chance.

    >>> found = correlation(store, "L1.mlp_post", "L2.mlp_post")            # doctest: +SKIP
    >>> found.top(5); found.null_max                                        # doctest: +SKIP

    Memory: 40 bytes for each pair of units while it is summed (two sums of products, old and new, and
    their work); above 1 GiB it says so before it starts.

    Args:
        source: an ActivationStore, ``interp.stream(...)``, or an iterable of Rows, in the corpus's order.
        a, b: whole sites, or parts of them (``"L2.mlp_post.N5,77"``, ``"L2.H3.z"``).
        a_units, b_units: numbers of the units wanted; None: all.
        of: ``"norm"`` for the length of each head's or the whole site's vector.
        a_transform, b_transform: rows [row, ...] → [row, unit], such as a dictionary's encode.
        shift: how many rows apart the pairs of the null are; pairs within one document are left out.
        tokens, size, progress: as in :func:`survey`.

    Raises:
        SiteError, RunError: as in :func:`survey`.
        BudgetError: the sums of products do not fit in memory.
    """
    plan = Correlate(a, b, a_units, b_units, of, a_transform, b_transform, shift)
    (result,) = survey(source, [plan], tokens=tokens, size=size, progress=progress)
    return result


def _joined(old: Cross | None, a: Tensor, b: Tensor) -> Cross | None:
    if not len(a):
        return old
    new = Cross.of(a, b)
    return new if old is None else old.merged(new)


def _fits(a: int, b: int, device: torch.device) -> None:
    need, have = 40 * a * b, available(device)
    if need > have:
        raise BudgetError(
            f"correlations of {a} × {b} units take {as_text(need)} while they are summed, and "
            f"{as_text(have)} are free: choose units with a_units= and b_units=."
        )
    if need > _LARGE:
        warn(f"correlations of {a} × {b} units take {as_text(need)} while they are summed.")
