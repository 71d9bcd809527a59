"""Units to train in: what is read and written, shifted and scaled to unit variance.

The scale is one number for each site, so directions and angles stay what they are. SAEs are not
shifted (their ``b_dec`` does that, on both sides); transcoders read around the mean of what they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import TrainingError

__all__ = ["Scales", "geometric_median"]


@dataclass(frozen=True, eq=False)
class Scales:
    """``x' = (x − in_shift)·in_scale`` and ``y' = y·out_scale``, for each part.

    Attributes:
        in_shift: [part, d_in].
        in_scale: [part].
        out_scale: [part].
    """

    in_shift: Float[Tensor, "part d_in"]
    in_scale: Float[Tensor, " part"]
    out_scale: Float[Tensor, " part"]

    @classmethod
    def of(
        cls,
        reads: Sequence[Float[Tensor, "row d_in"]],
        writes: Sequence[Float[Tensor, "row d_out"]],
        *,
        shift: bool,
        scale: bool,
    ) -> Scales:
        """From a sample.

        Raises:
            TrainingError: activations that are constant, or not finite.
        """
        shifts = [x.mean(0) if shift else torch.zeros_like(x[0]) for x in reads]
        in_scale, out_scale = (
            [_scale(x) if scale else 1.0 for x in side] for side in (reads, writes)
        )
        return cls(
            torch.stack(shifts),
            torch.tensor(in_scale, dtype=reads[0].dtype, device=reads[0].device),
            torch.tensor(out_scale, dtype=reads[0].dtype, device=reads[0].device),
        )

    def read(self, part: int, x: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        return (x - self.in_shift[part]) * self.in_scale[part]

    def written(self, part: int, y: Float[Tensor, "row d_out"]) -> Float[Tensor, "row d_out"]:
        return y * self.out_scale[part]


def _scale(x: Float[Tensor, "row d"]) -> float:
    """1 / the standard deviation of a number, all numbers together."""
    variance = float((x - x.mean(0)).double().square().mean())
    if not 0 < variance < float("inf"):
        raise TrainingError(
            f"the activations to train on have variance {variance}; expected finite ones that differ "
            "from token to token. Is the site right, and does the store hold more than one token?"
        )
    return variance**-0.5


def geometric_median(
    x: Float[Tensor, "row d"], *, steps: int = 100, tolerance: float = 1e-6
) -> Float[Tensor, " d"]:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration."""
    point = x.mean(0)
    for _ in range(steps):
        weights = 1 / (x - point).norm(dim=-1).clamp(min=1e-12)
        new = (weights[:, None] * x).sum(0) / weights.sum()
        done = (new - point).norm() <= tolerance * new.norm()
        point = new
        if done:
            break
    return point
