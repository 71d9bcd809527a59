"""How much do directions that share too few dimensions overlap?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import as_rows

__all__ = ["Overlap", "overlap", "welch_bound"]


@dataclass(frozen=True)
class Overlap:
    """Squared cosines between the rows of a matrix that are long enough to count.

    Attributes:
        represented: share of the rows whose norm is above the threshold.
        squared: mean squared cosine between two different ones of those; NaN with fewer than two.
        times_width: ``squared`` times the width d: 1 = as random directions; 0 = orthogonal; below 1 =
            spread more evenly than chance.
        largest: largest squared cosine.
    """

    represented: float
    squared: float
    times_width: float
    largest: float


def overlap(x: Float[Tensor, "n d"], *, norm: float = 0.5) -> Overlap:
    """Overlaps of the rows whose norm is above ``norm``.

    Source:
        Liu, Liu & Gore 2025, "Superposition yields robust neural scaling", arXiv:2505.10465: features
        count as represented by their norm, and in strong superposition squared overlaps fall as 1 / d.

    >>> overlap(torch.eye(4)).times_width
    0.0

    Raises:
        MetricError: no matrix, or numbers that are not finite.
    """
    rows = as_rows(x, "overlap()")
    if rows.ndim != 2:
        raise MetricError(f"overlap() got an array of shape {list(rows.shape)}; expected [n, d].")
    size = rows.norm(dim=-1)
    kept = rows[size > norm] / size[size > norm, None]
    share, n = len(kept) / len(rows), len(kept)
    if n < 2:
        return Overlap(share, torch.nan, torch.nan, torch.nan)
    cosines = (kept @ kept.T).square().fill_diagonal_(0)
    mean = float(cosines.sum()) / (n * (n - 1))
    return Overlap(share, mean, mean * rows.shape[1], float(cosines.max()))


def welch_bound(n: int, d: int) -> float:
    """Least possible mean squared cosine of n directions in d dimensions: (n - d) / (d (n - 1)), or 0.

    Raises:
        MetricError: fewer than two directions, or no dimension.

    Source:
        Welch 1974, "Lower bounds on the maximum cross correlation of signals".

    >>> round(welch_bound(3, 2), 4)  # three directions at 120 degrees
    0.25
    """
    if n < 2 or d < 1:
        raise MetricError(
            f"welch_bound(n={n}, d={d}); expected two directions or more, and a dimension."
        )
    return max(0.0, (n - d) / (d * (n - 1)))
