"""The first pass: how often each feature fires, and how strongly at most.

It says which features are alive, and where the intervals of the second pass lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.inspection.chosen import Chosen, places
from interp.results import Provenance
from interp.store.rows import Rows
from interp.surveys.units import pieces

__all__ = ["Fired", "Firing"]


@dataclass(frozen=True, eq=False)
class Fired:
    """What the first pass saw.

    Attributes:
        count: tokens at which each feature is active.
        most: its largest activation; 0 if it never fires.
        n_tokens: tokens read.
    """

    count: Int[Tensor, " feature"]
    most: Float[Tensor, " feature"]
    n_tokens: int


@dataclass(frozen=True, eq=False)
class Firing:
    """Counts and maxima of some features, as a plan for :func:`interp.surveys.survey`."""

    chosen: Chosen
    sites: tuple[str, ...] = ()

    def on(self, sites: Sequence[str]) -> Firing:
        return replace(self, sites=places(self.chosen.dictionary, sites))

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.sites))

    def call(self) -> dict[str, Any]:
        return {"verb": "features"}

    def update(self, state: Fired | None, rows: Rows) -> Fired:
        n, device = len(self.chosen), self.chosen.device
        count = torch.zeros(n, dtype=torch.int64, device=device) if state is None else state.count
        most = torch.zeros(n, device=device) if state is None else state.most
        for part in pieces(rows, self.chosen.width):
            values = self.chosen(part, self.sites)
            count = count + (values > 0).sum(0)
            most = most.maximum(values.amax(0))
        return Fired(count, most, len(rows) + (0 if state is None else state.n_tokens))

    def result(self, state: Fired, provenance: Provenance) -> Fired:
        return state
