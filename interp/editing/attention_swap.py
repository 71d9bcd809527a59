"""Swap the attention that two places get from the last position.

Li & Gao 2024 (arXiv:2405.03205) recalibrate the attention of GPT-2's heads by exchanging the weight on the anchor's
position with that on the right label's. The right position is told, as in their update of value vectors; rows of the
pattern still sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import RunError
from interp.prompts.prompts import Prompts

__all__ = ["SwapAttention", "swap_attention"]


@dataclass(frozen=True, eq=False)
class SwapAttention:
    """Exchange the attention from the last position to two places. Made by :func:`swap_attention`.

    Attributes:
        first, second: the columns exchanged, several of each prompt.
        last: the column that attends.
    """

    first: Int[Tensor, "prompt place"]
    second: Int[Tensor, "prompt place"]
    last: Int[Tensor, " prompt"]

    def __call__(
        self, x: Float[Tensor, "prompt *head query key"]
    ) -> Float[Tensor, "prompt *head query key"]:
        if len(x) != len(self.last) or x.dim() < 3 or x.shape[-1] != x.shape[-2]:
            raise self._other(f"a tensor of shape {list(x.shape)}")
        first, second, last = (c.to(x.device) for c in (self.first, self.second, self.last))
        rows, out = torch.arange(len(x), device=x.device), x.clone()
        for one, other in zip(first.T, second.T, strict=True):
            out[rows, ..., last, one] = x[rows, ..., last, other]
            out[rows, ..., last, other] = x[rows, ..., last, one]
        return out

    def rows(self, start: int, stop: int, total: int) -> SwapAttention:
        """The same edit for rows ``start`` to ``stop`` of a run of the prompts that it was made for."""
        if total != len(self.last):
            raise self._other(f"a run of {total}")
        part = slice(start, stop)
        return SwapAttention(self.first[part], self.second[part], self.last[part])

    def _other(self, given: str) -> RunError:
        return RunError(
            f"SwapAttention was made for the patterns of {len(self.last)} prompts, and was given {given}. "
            "Use it at 'L2.H3.pattern' or 'L2.pattern', in a run of the same prompts."
        )


def swap_attention(
    prompts: Prompts, first: int | str, second: int | str, *, behind: int = 0
) -> SwapAttention:
    """An edit of patterns: the last position's attention to two places, exchanged.

    >>> swap = swap_attention(prompts, "A", "correct")                        # doctest: +SKIP
    >>> model.run(prompts, edit={"L2.H3.pattern": swap})                      # doctest: +SKIP

    Where both names mean one place (A is right) nothing changes.

    Args:
        first, second: positions by name or number.
        behind: how many tokens behind each are exchanged with it.

    Raises:
        PromptError: no such position.
        RunError: a place so near the other, or the end, that tokens behind them overlap.
    """
    last = prompts.answer_column
    one, other = prompts.columns(first), prompts.columns(second)
    near = (one != other) & ((one - other).abs() <= behind)
    if behind < 0 or bool((near | (one + behind > last) | (other + behind > last)).any()):
        raise RunError(
            f"behind={behind}: {first!r} and {second!r}, with that many tokens behind each, overlap or reach "
            "beyond the last token of some prompt. Take fewer."
        )
    after = torch.arange(behind + 1)
    return SwapAttention(one[:, None] + after, other[:, None] + after, last)
