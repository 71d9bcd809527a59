"""Several processes that harvest one store together, started by ``torchrun``.

The ranks share out the shards that are missing; nothing else passes between them than "the lead has
opened the store", "all have read what is done" and, at the end, what each has run. A rank that dies
loses its shards in flight: torchrun stops the others, and the same command goes on, with as many
ranks as there are then.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta

import torch

from interp.errors import StoreError

__all__ = ["Ranks"]

#: Ranks wait for the slowest at the end, which may have a large shard to go.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together.

    Attributes:
        rank: its number, 0 for the lead.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """The ranks of the torchrun that this process was started by; one alone otherwise."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        dist = torch.distributed
        if not dist.is_available() or (world == 1 and not dist.is_initialized()):
            return cls()
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def lead(self) -> bool:
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether the ``number``-th piece of work falls to this rank."""
        return number % self.world == self.rank

    def follow(self, failed: bool = False) -> None:
        """Wait until the lead has done its part.

        Raises:
            StoreError: the lead could not, on the other ranks.
        """
        if self.world == 1:
            return
        word = torch.tensor([int(failed)], device=_device())
        torch.distributed.broadcast(word, src=0)
        if word.item() and not self.lead:
            raise StoreError("rank 0 could not open the store: see its message.")

    def together(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            self.gather(0)

    def gather(self, count: int) -> list[int]:
        """Each rank's count, on every rank."""
        if self.world == 1:
            return [count]
        mine = torch.tensor([count], device=_device())
        counts = [torch.zeros_like(mine) for _ in range(self.world)]
        torch.distributed.all_gather(counts, mine)
        return [int(one) for one in counts]


def _device() -> str:
    """Where small messages live: nccl alone cannot carry the CPU's."""
    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
