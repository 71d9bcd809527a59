"""``Codes``: the few features that are active in each row, without the many that are not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Codes"]


@dataclass(frozen=True, eq=False)
class Codes:
    """Feature activations of some rows, one row after another (compressed sparse rows).

    Attributes:
        values: of each entry, never negative. An entry may be 0: it is then as if it were not there.
        features: which feature each entry is of.
        offsets: the entry that each row begins with.
        d_sae: features there are.

    >>> Codes(torch.ones(2), torch.tensor([3, 1]), torch.tensor([0, 2]), d_sae=4).dense()
    tensor([[0., 1., 0., 1.],
            [0., 0., 0., 0.]])
    """

    values: Float[Tensor, " active"]
    features: Int[Tensor, " active"]
    offsets: Int[Tensor, " rows"]
    d_sae: int

    def __len__(self) -> int:
        """Rows."""
        return len(self.offsets)

    def counts(self) -> Int[Tensor, " rows"]:
        """Entries of each row."""
        end = self.offsets.new_tensor([len(self.features)])
        return torch.diff(self.offsets, append=end)

    def rows(self) -> Int[Tensor, " active"]:
        """The row of each entry."""
        index = torch.arange(len(self), device=self.offsets.device)
        return torch.repeat_interleave(index, self.counts(), output_size=len(self.features))

    def dense(self) -> Float[Tensor, "rows d_sae"]:
        """All of them, zeros included."""
        out = self.values.new_zeros(len(self), self.d_sae)
        return out.index_put_((self.rows(), self.features), self.values, accumulate=True)
