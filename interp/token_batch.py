"""A padded batch of token ids that knows its padding.

Positions are counted among *real* tokens, negative ones from the end, so
``batch.column(-1)`` is each prompt's last token whichever side is padded.
A *column* is an index into the tensor; a *position* is what a person means.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import PromptError

__all__ = ["TokenBatch"]


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Token ids of several prompts, padded to one width on one side.

    Attributes:
        ids: token ids; what stands at padded places does not matter.
        mask: True where a token is real.
        segments: where several texts are packed into a row, the number of each token's text. A
            token then attends to its own text alone, and its position is counted within it, as
            if each text stood in a row of its own. None: a row is one text.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    segments: Int[Tensor, "batch pos"] | None = None

    def __post_init__(self) -> None:
        ids, mask = self.ids, self.mask
        if self.segments is not None and self.segments.shape != ids.shape:
            raise PromptError(
                f"segments have shape {list(self.segments.shape)}, expected {list(ids.shape)}: the "
                "number of its text for each token."
            )
        if ids.ndim != 2 or ids.numel() == 0:
            raise PromptError(
                f"token ids have shape {list(ids.shape)}, expected a non-empty [batch, pos]. "
                "Pass at least one prompt with at least one token."
            )
        if ids.dtype not in (torch.int64, torch.int32):
            raise PromptError(
                f"token ids have dtype {ids.dtype}, expected integers (torch.int64). "
                "Convert them with ids.long()."
            )
        if mask.shape != ids.shape or mask.dtype != torch.bool:
            raise PromptError(
                f"the mask is {mask.dtype} {list(mask.shape)}, expected torch.bool "
                f"{list(ids.shape)}, True where a token is real. Try attention_mask.bool()."
            )
        if bool(mask.all()):
            return
        bad = [row for row, real in enumerate(mask.tolist()) if not _one_span(real)]
        if bad:
            raise PromptError(
                f"prompt {bad[0]} has mask {mask[bad[0]].int().tolist()}, expected one unbroken "
                "run of real tokens with padding on one side only. Pad on the left or on the right."
            )

    @classmethod
    def of(cls, ids: Int[Tensor, "*batch pos"]) -> TokenBatch:
        """A batch of unpadded ids, taken as they are; one row may come without its batch axis."""
        rows = ids[None] if ids.ndim == 1 else ids
        return cls(rows, torch.ones_like(rows, dtype=torch.bool))

    @classmethod
    def stack(
        cls,
        rows: Sequence[Sequence[int]],
        *,
        pad: Literal["right", "left"] = "right",
        fill: int = 0,
    ) -> TokenBatch:
        """A batch of rows of different lengths, padded to the longest with ``fill``.

        >>> TokenBatch.stack([[5], [6, 7]], pad="left").ids.tolist()
        [[0, 5], [6, 7]]
        """
        if pad not in ("right", "left"):
            raise PromptError(f"pad={pad!r}, expected 'right' or 'left'.")
        width = max((len(row) for row in rows), default=0)
        ids = torch.full((len(rows), width), fill)
        mask = torch.zeros((len(rows), width), dtype=torch.bool)
        for row, tokens in enumerate(rows):
            n = len(tokens)
            where = slice(0, n) if pad == "right" else slice(width - n, width)
            ids[row, where] = torch.tensor(tokens, dtype=torch.long)
            mask[row, where] = True
        return cls(ids, mask)

    @classmethod
    def given(cls, inputs: Any, *, pad: Literal["right", "left"] = "right") -> TokenBatch | None:
        """What holds token ids (tensor, array, list, list of rows) as a batch; None for all else."""
        if isinstance(inputs, TokenBatch):
            return inputs
        if isinstance(inputs, Tensor):
            return cls.of(inputs)
        if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "iu":
            return cls.of(torch.as_tensor(inputs.astype(np.int64)))
        if not isinstance(inputs, list | tuple) or not inputs:
            return None
        if all(isinstance(one, numbers.Integral) and not isinstance(one, bool) for one in inputs):
            return cls.of(torch.tensor([int(one) for one in inputs]))
        rows = [None if isinstance(row, str) else cls.given(row) for row in inputs]
        if any(row is None or len(row) != 1 for row in rows):
            return None
        return cls.stack([row.ids[0].tolist() for row in rows if row is not None], pad=pad)

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __repr__(self) -> str:
        pad = ", padded" * self.padded + ", packed" * (self.segments is not None)
        return f"TokenBatch({self.ids.shape[0]} × {self.ids.shape[1]} tokens{pad})"

    @property
    def padded(self) -> bool:
        """Whether any row has padding."""
        return not bool(self.mask.all())

    @property
    def n_real(self) -> Int[Tensor, " batch"]:
        """Number of real tokens of each row, BOS included."""
        return self.mask.sum(-1)

    @property
    def first(self) -> Int[Tensor, " batch"]:
        """Column of each row's first real token."""
        return self.mask.int().argmax(-1)

    def column(self, position: int | Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The column of a position counted among real tokens, negative from the end.

        >>> batch = TokenBatch(torch.tensor([[0, 7, 8]]), torch.tensor([[False, True, True]]))
        >>> batch.column(0), batch.column(-1)
        (tensor([1]), tensor([2]))
        """
        length = self.n_real
        where = torch.as_tensor(position, device=length.device).expand_as(length)
        outside = (where < -length) | (where >= length)
        if outside.any():
            row = int(outside.int().argmax())
            n = int(length[row])
            raise PromptError(
                f"position {int(where[row])} is outside prompt {row}, which has {n} tokens: "
                f"expected {-n} to {n - 1}. Negative positions count from the end."
            )
        return self.first + where % length

    def position_ids(self) -> Int[Tensor, "batch pos"]:
        """Position of every column among its text's real tokens, 0 at padding on the left."""
        counted = self.mask.long().cumsum(-1)
        if self.segments is not None:
            begins = torch.ones_like(self.mask)
            begins[:, 1:] = self.segments[:, 1:] != self.segments[:, :-1]
            before = (counted - self.mask.long()).masked_fill(~begins, 0)
            counted = counted - before.cummax(-1).values
        return (counted - 1).clamp(min=0)

    def may_attend(self, *, causal: bool = True) -> Bool[Tensor, "batch pos key"]:
        """Who may attend to whom: to real tokens, within a text, and to no later ones if causal.

        A token of padding sees its neighbours in padding, since a row of no key at all is NaN.
        """
        allowed = self.mask[:, None, :] == self.mask[:, :, None]
        if self.segments is not None:
            allowed &= self.segments[:, :, None] == self.segments[:, None, :]
        return allowed.tril() if causal else allowed

    def left_padded(self) -> TokenBatch:
        """The same prompts with their padding on the left, where generation needs it."""
        if self.segments is not None:
            raise PromptError(
                "rows that several texts are packed into cannot be continued: give each text a row "
                "of its own."
            )
        turns = (self.ids.shape[1] - 1 - self.column(-1)).tolist()
        ids, mask = (
            torch.stack([row.roll(n) for row, n in zip(tensor, turns, strict=True)])
            for tensor in (self.ids, self.mask)
        )
        return TokenBatch(ids, mask)

    def to(self, device: str | torch.device) -> TokenBatch:
        if self.ids.device == torch.device(device):
            return self
        segments = None if self.segments is None else self.segments.to(device)
        return TokenBatch(self.ids.to(device), self.mask.to(device), segments)

    def rows(self, index: int | slice | Sequence[int] | Int[Tensor, " rows"]) -> TokenBatch:
        """Some rows at the same width; a single row keeps its batch axis."""
        if isinstance(index, int):
            index = [index]
        segments = None if self.segments is None else self.segments[index]
        return TokenBatch(self.ids[index], self.mask[index], segments)


def _one_span(real: list[bool]) -> bool:
    """Whether the real tokens are one unbroken run that touches an end of the row."""
    starts = sum(b and not a for a, b in zip([False, *real], real, strict=False))
    return starts == 1 and (real[0] or real[-1])
