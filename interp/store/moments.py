"""What is counted at one site of a store while its rows come by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.geometry.moments import Cross, Moments

__all__ = ["BINS", "LOWEST", "PER_OCTAVE", "RowMoments"]

PER_OCTAVE = 8
LOWEST = -64  # norms below 2^-64, zero among them, share the first bin
BINS = 128 * PER_OCTAVE


@dataclass(frozen=True, eq=False, repr=False)
class RowMoments:
    """Rows of one site, summed up.

    Attributes:
        rows: moments of each coordinate.
        cross: of all pairs of coordinates; None unless asked for.
        norms: moments of the rows' lengths, as one number.
        norm_max: the longest row's.
        histogram: how many rows have a norm in each bin.
    """

    rows: Moments
    cross: Cross | None
    norms: Moments
    norm_max: Float[Tensor, ""]
    histogram: Int[Tensor, " bin"]

    @classmethod
    def of(cls, x: Float[Tensor, "row d"], *, covariance: bool) -> RowMoments:
        """Of some rows, of one at least."""
        x = x.double()
        norms = x.norm(dim=-1)
        bins = ((norms.log2() - LOWEST) * PER_OCTAVE).clamp(0, BINS - 1).long()
        cross = Cross.of(x, x) if covariance else None
        return cls(
            rows=Moments.of(x) if cross is None else cross.a,
            cross=cross,
            norms=Moments.of(norms[:, None]),
            norm_max=norms.max(),
            histogram=torch.bincount(bins, minlength=BINS),
        )

    def merged(self, other: RowMoments) -> RowMoments:
        """The moments of both together."""
        cross = (
            None if self.cross is None or other.cross is None else self.cross.merged(other.cross)
        )
        return RowMoments(
            rows=self.rows.merged(other.rows) if cross is None else cross.a,
            cross=cross,
            norms=self.norms.merged(other.norms),
            norm_max=torch.maximum(self.norm_max, other.norm_max),
            histogram=self.histogram + other.histogram,
        )
