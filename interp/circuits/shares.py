"""Faithfulness as arithmetic: where a score lies between an empty circuit and the whole model.

.. math:: f = (m(C) - m(∅)) / (m(full) - m(∅))

of means over prompts: 0 is the run in which every edge is ablated, 1 the untouched model. Values
beyond both are real (a circuit without its negative heads overshoots) and are never clipped.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import GapError
from interp.intervals import Interval, resamples

__all__ = ["gap", "share", "share_interval", "shares_of_resamples"]

MIN_GAP = 1e-3


def gap(
    full: Float[Tensor, " prompt"], empty: Float[Tensor, " prompt"], *, min_gap: float = MIN_GAP
) -> float:
    """m(full) - m(∅), means over prompts.

    Raises:
        GapError: it is too close to 0 to divide by.
    """
    found = float(full.double().mean() - empty.double().mean())
    if not abs(found) >= min_gap:
        raise GapError(
            f"the whole model scores {float(full.mean()):.4g} and the empty circuit "
            f"{float(empty.mean()):.4g} on average: a gap of {found:.2g} is too small to divide by "
            f"(min_gap={min_gap:g}), so faithfulness means nothing here. Check that the corruption "
            "changes the answer, or choose another metric or ablation."
        )
    return found


def share(
    values: Float[Tensor, "*cells prompt"],
    full: Float[Tensor, " prompt"],
    empty: Float[Tensor, " prompt"],
    *,
    min_gap: float = MIN_GAP,
) -> Float[Tensor, "*cells"]:
    """Share of the gap from the empty circuit (0) to the model (1), of means over prompts.

    Raises:
        GapError: m(full) and m(∅) are closer than ``min_gap``, in the metric's unit.

    >>> share(torch.tensor([[1.0, 3.0]]), torch.tensor([4.0, 4.0]), torch.zeros(2))
    tensor([0.5000], dtype=torch.float64)
    """
    whole = gap(full, empty, min_gap=min_gap)
    return (values.double().mean(-1) - empty.double().mean()) / whole


def share_interval(
    values: Float[Tensor, "*cells prompt"],
    full: Float[Tensor, " prompt"],
    empty: Float[Tensor, " prompt"],
    *,
    min_gap: float = MIN_GAP,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A share with its percentile bootstrap interval over prompts.

    In each resample all three means are of the same prompts. Bounds are nan with one prompt.
    """
    mean = share(values, full, empty, min_gap=min_gap)
    if values.shape[-1] == 1:
        nan = torch.full_like(mean, torch.nan)
        return Interval(mean, nan, nan, level)
    drawn = shares_of_resamples(values, full, empty, n=n, seed=seed)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2]).to(drawn)
    low, high = torch.quantile(drawn, ends, dim=-1)
    return Interval(mean, low, high, level)


def shares_of_resamples(
    values: Float[Tensor, "*cells prompt"],
    full: Float[Tensor, " prompt"],
    empty: Float[Tensor, " prompt"],
    *,
    n: int,
    seed: int,
) -> Float[Tensor, "*cells resample"]:
    """The share in each of ``n`` resamples of the prompts, the same for every cell."""
    weights = resamples(values.shape[-1], n, seed).to(values.device)
    bottom = empty.double() @ weights
    return (values.double() @ weights - bottom) / (full.double() @ weights - bottom)
