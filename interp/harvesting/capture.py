"""One batch of packed rows through the model: the wanted tokens' activations, copied out.

Only the layers up to the last wanted site run, and no unembedding. On a GPU the kept rows are
picked out and cast there, and copied to pinned memory beside the next batch's forward pass;
:meth:`Landing.wait` says when they have arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.corpora.packed import PackedBatch
from interp.models.model import Model
from interp.runs.execute import execute
from interp.sites import Site

__all__ = ["Landing", "capture", "origins"]


@dataclass
class Landing:
    """Where activations are put: rows of memory, pinned if a GPU writes to the CPU's.

    Attributes:
        tensors: for each site, room for ``rows`` rows.
    """

    tensors: Mapping[str, Float[Tensor, "row ..."]]
    _copies: list[torch.cuda.Event] = field(default_factory=list)
    _streams: dict[torch.device, torch.cuda.Stream] = field(default_factory=dict)

    @classmethod
    def of(
        cls, shapes: Mapping[str, Sequence[int]], rows: int, dtype: torch.dtype, *,
        device: torch.device | str = "cpu", pinned: bool = False,
    ) -> Landing:  # fmt: skip
        """Room for some rows of each site."""
        options: dict[str, Any] = {"dtype": dtype, "device": device, "pin_memory": pinned}
        return cls({site: torch.empty(rows, *one, **options) for site, one in shapes.items()})

    @property
    def room(self) -> int:
        """Rows that fit."""
        return min(len(x) for x in self.tensors.values())

    def put(self, site: str, start: int, values: Float[Tensor, "row ..."]) -> None:
        """Copy some rows in; from a GPU they travel beside what it computes next."""
        target = self.tensors[site][start : start + len(values)]
        if not values.is_cuda or target.device == values.device:
            target.copy_(values)
            return
        side = self._streams.setdefault(values.device, torch.cuda.Stream(values.device))
        side.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(side):
            target.copy_(values, non_blocking=True)
            values.record_stream(side)
            self._copies.append(side.record_event())

    def wait(self) -> None:
        """Return once everything that was put has arrived."""
        for event in self._copies:
            event.synchronize()
        self._copies.clear()


def capture(
    model: Model, batch: PackedBatch, sites: Sequence[Site], into: Landing, *, start: int
) -> int:
    """Run a batch and put its wanted tokens' activations into ``into``, from row ``start`` on.

    Returns:
        How many rows were put, in the order of the batch's rows and places.
    """
    tokens = batch.tokens.to(model.device)
    cache = execute(
        model.anatomy, tokens, save=sites, logits="none", rows_at_once=len(tokens)
    ).cache
    kept = batch.keep.flatten().nonzero().flatten()
    for site in sites:
        values = cache[site].flatten(0, 1)
        picked = values.index_select(0, kept.to(values.device, non_blocking=True))
        if picked.is_cuda:
            picked = picked.to(into.tensors[str(site)].dtype)
        into.put(str(site), start, picked)
    return len(kept)


def origins(batches: Sequence[PackedBatch]) -> dict[str, Tensor]:
    """Token, document and position of every wanted token of some batches, in their order."""
    return {
        name: torch.cat([part(batch)[batch.keep] for batch in batches]).to(dtype)
        for name, part, dtype in (
            ("tokens", lambda b: b.tokens.ids, torch.int32),
            ("document", lambda b: b.document, torch.int64),
            ("position", lambda b: b.position, torch.int32),
        )
    }
