"""Rows to train on, from a store or straight from the model, with the exact place they are at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.errors import TrainingError
from interp.harvesting.stream import ActivationStream
from interp.store.asking import kind_and_place
from interp.store.rows import Rows
from interp.store.store import ActivationStore
from interp.training.parallel import Together

__all__ = ["Feed"]


class Feed:
    """Batches without end; each rank has its part of each.

    A stream runs the model in every rank over the whole corpus, and each keeps its part: correct, and
    no faster for the model. Ranks that share a store read their own rows only.
    """

    def __init__(
        self,
        source: ActivationStore | ActivationStream,
        sites: Sequence[str],
        *,
        batch: int,
        seed: int,
        device: torch.device | str,
        together: Together,
    ) -> None:
        rank, world = together.part
        if batch % world:
            raise TrainingError(f"batches of {batch} rows on {world} processes: give a multiple.")
        self._device = kind_and_place(None, device)[1]
        self._share = slice(0, None)
        if isinstance(source, ActivationStore):
            self._batches: Any = source.batches(
                batch, seed=seed, epochs=None, sites=list(sites), dtype=torch.float32, device=device,
                part=together.part, drop_last=True,
            )  # fmt: skip
        else:
            self._batches = source.batches(batch, seed=seed, epochs=None, drop_last=True)
            self._share = slice(batch * rank // world, batch * (rank + 1) // world)

    def sample(self, n: int) -> list[Rows]:
        """The next ``n`` batches, which stay next: a stream runs the model for them once more."""
        position, tensors = self.state()
        rows = [next(self) for _ in range(n)]
        self.go_to(position, tensors)
        return rows

    def __next__(self) -> Rows:
        rows: Rows = next(self._batches)
        return rows.take(self._share).to(self._device, torch.float32)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The place, as JSON values and tensors."""
        state = self._batches.state_dict()
        if "tensors" in state:
            return state["position"], state["tensors"]
        return state, {}

    def go_to(self, position: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from a place that :meth:`state` gave."""
        state: Any = {"position": position, "tensors": tensors} if tensors else dict(position)
        self._batches.load_state_dict(state)

    def close(self) -> None:
        if hasattr(self._batches, "close"):
            self._batches.close()
