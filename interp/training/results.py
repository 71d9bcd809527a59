"""What one step of one dictionary tells: losses, and which features were active."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Outcome", "Picked"]


@dataclass(frozen=True, eq=False)
class Picked:
    """Which features were active in a batch.

    Attributes:
        counts: for each part, tokens at which each feature was active.
        least: for each part the smallest activation above 0; infinite where there was none.
    """

    counts: list[Int[Tensor, " d_sae"]]
    least: list[Float[Tensor, ""]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A step's loss, by term, and what was seen on the way.

    Attributes:
        terms: what was minimised, each divided by the rows of the whole batch.
        squared_error: sum over these rows of the squared error of the whole reconstruction.
        error: ``y − ŷ`` of each row.
    """

    terms: dict[str, Float[Tensor, ""]]
    squared_error: Float[Tensor, ""]
    error: Float[Tensor, "row width"]
    picked: Picked = field(repr=False)
