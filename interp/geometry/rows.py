"""What every quantity asks of its rows: enough of them, and finite numbers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError

__all__ = ["array", "as_rows", "paired"]


def array(given: Any, what: str) -> Tensor:
    """A tensor of what was given: a tensor, a numpy array, or nested lists.

    Raises:
        MetricError: it is none of these.
    """
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MetricError(
            f"{what} got {type(given).__name__} {given!r:.40}; expected an array of numbers."
        ) from error


def as_rows(
    x: Float[Tensor, "*sets n d"], what: str, *, least: int = 2
) -> Float[Tensor, "*sets n d"]:
    """The rows in float64.

    Raises:
        MetricError: no [n, d], too few rows, or a number that is not finite.
    """
    x = array(x, what)
    if x.ndim < 2 or x.shape[-2] < least or x.shape[-1] < 1:
        raise MetricError(
            f"{what} got an array of shape {list(x.shape)}; expected rows [n, d] with n ≥ {least}. "
            "Rows are examples: flatten batch and positions into one axis."
        )
    values = x.detach().double()
    bad = ~values.isfinite().all(-1)
    if bad.any():
        raise MetricError(
            f"{what}: {int(bad.sum())} of {bad.numel()} rows have NaN or infinite numbers; expected "
            "finite ones. Leave padding out."
        )
    return values


def paired(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], what: str, *, least: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n e"]]:
    """Two representations of the same rows.

    Raises:
        MetricError: they differ in rows, or are no matrices.
    """
    x, y = array(x, what), array(y, what)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise MetricError(
            f"{what} got arrays of shapes {list(x.shape)} and {list(y.shape)}; expected [n, d] and "
            "[n, e], row i of both being the same example."
        )
    return as_rows(x, what, least=least), as_rows(y, what, least=least)
