"""Edits: what can be done to a tensor on its way through the model.

An edit is any function ``tensor -> tensor``. It sees exactly what the cache
would hold under the site's name (one head, one position, or the whole tensor)
and returns a tensor of that shape. The frozen objects here are the common ones;
unlike a plain function they know which rows of a batch they are given, so a run
may be cut into batches without changing what they do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import RunError

__all__ = ["Add", "Edit", "Noise", "PlacedEdit", "Replace", "RowEdit", "Scale", "Zero"]

Edit = Callable[[Tensor], Tensor]


@runtime_checkable
class RowEdit(Protocol):
    """An edit that can be narrowed to some of a run's rows."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def rows(self, start: int, stop: int, total: int) -> RowEdit:
        """The same edit for rows ``start`` to ``stop`` of ``total``."""
        ...


@runtime_checkable
class PlacedEdit(Protocol):
    """An edit of whole rows that asks where a position lies in each of them."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def placed(self, columns: Callable[[int | str], Int[Tensor, " batch"]]) -> Edit:
        """The same edit for rows in which a position stands at ``columns(position)``."""
        ...


@dataclass(frozen=True)
class _Rows:
    """Which of a run's rows an edit is given: ``start`` to ``stop`` of ``total``."""

    start: int
    stop: int
    total: int


def _fit(value: Tensor | float, x: Tensor, verb: str, rows: _Rows | None) -> Tensor:
    """``value`` as a tensor that broadcasts to ``x``.

    A value of as many axes as ``x`` whose first counts the run's prompts is cut to the rows at
    hand; any other serves every row.
    """
    tensor = torch.as_tensor(value, device=x.device).to(x.dtype)
    if rows is not None and tensor.dim() == x.dim() and tensor.shape[0] == rows.total:
        tensor = tensor[rows.start : rows.stop]
        if tensor.shape[0] != x.shape[0]:  # beams of each prompt
            tensor = tensor.repeat_interleave(x.shape[0] // tensor.shape[0], 0)
    try:
        shape = torch.broadcast_shapes(tensor.shape, x.shape)
    except RuntimeError:
        shape = torch.Size()
    if shape != x.shape:
        raise RunError(
            f"{verb} was given a value of shape {list(tensor.shape)}, but the site holds "
            f"{list(x.shape)}: give a value that broadcasts to it."
        )
    return tensor


@dataclass(frozen=True, eq=False)
class Replace:
    """Put ``value`` in place of the tensor.

    It broadcasts; with as many axes as the tensor, its first axis may count the prompts.
    """

    value: Tensor | float
    _rows: _Rows | None = None

    def __call__(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        return _fit(self.value, x, "Replace", self._rows).expand_as(x)

    def rows(self, start: int, stop: int, total: int) -> Replace:
        return Replace(self.value, _Rows(start, stop, total))


@dataclass(frozen=True, eq=False)
class Add:
    """Add ``value``, for example a steering vector of shape [d_model]."""

    value: Tensor | float
    _rows: _Rows | None = None

    def __call__(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        return x + _fit(self.value, x, "Add", self._rows)

    def rows(self, start: int, stop: int, total: int) -> Add:
        return Add(self.value, _Rows(start, stop, total))


@dataclass(frozen=True)
class Scale:
    """Multiply by ``factor``."""

    factor: float

    def __call__(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        return x * self.factor

    def rows(self, start: int, stop: int, total: int) -> Scale:
        return self


@dataclass(frozen=True)
class Zero:
    """Put zeros in place of the tensor (zero ablation)."""

    def __call__(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        return torch.zeros_like(x)

    def rows(self, start: int, stop: int, total: int) -> Zero:
        return self


def _mix(seed: int, row: int) -> int:
    """One 32-bit seed from two numbers (torch's generator ignores higher bits)."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row}".encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise of standard deviation ``std``, in the tensor's unit.

    The noise of a row depends on the seed and the row's number in the run alone:
    the same for any batch size, at each site of one shape, and on each call.
    """

    std: float
    seed: int = 0
    first_row: int = 0

    def __call__(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        generator = torch.Generator()
        rows = []
        for row in range(self.first_row, self.first_row + x.shape[0]):
            generator.manual_seed(_mix(self.seed, row))
            rows.append(torch.randn(x.shape[1:], generator=generator))
        return x + self.std * torch.stack(rows).to(x)

    def rows(self, start: int, stop: int, total: int) -> Noise:
        return replace(self, first_row=self.first_row + start)
