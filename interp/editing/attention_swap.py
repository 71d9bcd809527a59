"""Swap the attention that two places get from the last position.

Li & Gao 2024 (arXiv:2405.03205) recalibrate the attention of GPT-2's heads by exchanging the weight on the anchor's
position with that on the right label's. The right position is told, as in their update of value vectors; rows of the
pattern still sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import RunError

__all__ = ["SwapAttention"]


@dataclass(frozen=True, eq=False)
class SwapAttention:
    """Exchange the attention from the last position to two places; an edit of a whole ``pattern``.

    >>> model.run(prompts, edit={"L2.H3.pattern": SwapAttention("A", "correct")})   # doctest: +SKIP

    Where both names mean one place (A is right) nothing changes.

    Attributes:
        first, second: positions by name or number.
        behind: how many tokens behind each are exchanged with it.
    """

    first: int | str
    second: int | str
    behind: int = 0
    _columns: tuple[Int[Tensor, " batch"], ...] | None = None

    def placed(self, columns: Callable[[int | str], Int[Tensor, " batch"]]) -> SwapAttention:
        """The edit for rows whose positions stand at ``columns``."""
        where = tuple(columns(name) for name in (self.first, self.second, -1))
        return replace(self, _columns=where)

    def __call__(
        self, x: Float[Tensor, "batch *head query key"]
    ) -> Float[Tensor, "batch *head query key"]:
        if self._columns is None or x.dim() < 3:
            raise RunError(
                "SwapAttention works on a whole pattern in model.run, where it is told each prompt's "
                "positions: give it to a site such as 'L2.H3.pattern', without @position."
            )
        first, second, last = (c.to(x.device) for c in self._columns)
        rows, out = torch.arange(len(x), device=x.device), x.clone()
        for b in range(self.behind + 1):
            one, other = (first + b).minimum(last), (second + b).minimum(last)
            out[rows, ..., last, one] = x[rows, ..., last, other]
            out[rows, ..., last, other] = x[rows, ..., last, one]
        return out
