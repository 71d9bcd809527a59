"""Pre-activations of a few rows at a time, in one buffer that is used again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["chunk_rows", "pre_activations"]

_BYTES = {"cpu": 26 * 2**20}  # about the last-level cache; a matmul of fewer rows is slower
_BYTES_ELSEWHERE = 2**30
_MIN, _MAX = 256, 1024


def chunk_rows(x: Tensor, enc: Tensor, chunk: int | None, *, bytes_each: int | None = None) -> int:
    """Rows whose pre-activations are held at once."""
    if chunk is not None:
        return max(1, min(chunk, len(x)))
    room = _BYTES.get(x.device.type, _BYTES_ELSEWHERE)
    fit = room // (len(enc) * (bytes_each or x.element_size()))
    most = _MAX if x.device.type == "cpu" else 2**17
    return max(1, min(max(_MIN, 1 << max(0, fit.bit_length() - 1)), most, len(x)))


def pre_activations(
    enc: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"], rows: int
) -> Callable[[Float[Tensor, "some d_in"]], Float[Tensor, "some d_sae"]]:
    """A function that computes ``x @ encᵀ + b_enc`` for up to ``rows`` rows, each time in one place."""
    buffer = enc.new_empty(rows, len(enc))

    def of(x: Float[Tensor, "some d_in"]) -> Float[Tensor, "some d_sae"]:
        return torch.addmm(b_enc, x, enc.T, out=buffer[: len(x)])

    return of
