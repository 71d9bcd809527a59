"""What processes that train together tell each other; alone, nothing.

Each rank takes its share of every batch. Losses are divided by the rows of the whole batch, so sums
over ranks are what one process would have, and after :meth:`Together.add` of the gradients all ranks
take the same step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.harvesting.ranks import Ranks

__all__ = ["Together"]


@dataclass(frozen=True)
class Together:
    """The processes of one training run."""

    ranks: Ranks

    @property
    def part(self) -> tuple[int, int]:
        """(rank, world), as a store's batches take it."""
        return self.ranks.rank, self.ranks.world

    @property
    def alone(self) -> bool:
        return self.ranks.world == 1

    def add(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the ranks, in place."""
        if not self.alone:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def least(self, *tensors: Tensor) -> None:
        """Replace each tensor by its smallest value over the ranks, in place."""
        if not self.alone:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN)

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        return any(self.ranks.gather(int(here)))

    def rows(self, x: Float[Tensor, "row *rest"]) -> Float[Tensor, "rows *rest"]:
        """The rows of all ranks, in their order, on each of them."""
        if self.alone:
            return x
        counts = self.ranks.gather(len(x))
        most = max(counts)
        padded = x.new_zeros(most, *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])

    def kth(self, values: Float[Tensor, " candidates"], total: int) -> Float[Tensor, ""]:
        """The ``total``-th largest of all ranks' values; 0 where there are fewer positive ones."""
        candidates = self.rows(values.topk(min(total, len(values)), sorted=False).values)
        if len(candidates) < total:
            return candidates.new_zeros(())
        return candidates.topk(total, sorted=False).values.min().clamp(min=0)
