"""How sure is a mean over prompts? A percentile bootstrap, the same for every result."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError

__all__ = ["Interval", "bootstrap", "resamples"]


@dataclass(frozen=True, eq=False)
class Interval:
    """A mean over prompts and the bounds of its bootstrap interval, in the scores' unit.

    Attributes:
        mean: mean over prompts.
        low: lower bound, nan where there is only one prompt.
        high: upper bound, nan where there is only one prompt.
        level: share of bootstrap means between the bounds.
    """

    mean: Float[Tensor, "*cells"]
    low: Float[Tensor, "*cells"]
    high: Float[Tensor, "*cells"]
    level: float = 0.95

    def __str__(self) -> str:
        if self.mean.ndim:
            return f"Interval({list(self.mean.shape)} cells, {self.level:.0%})"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(
    values: Float[Tensor, "*cells prompt"],
    *,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean over prompts.

    Every cell sees the same ``n`` resamples of the prompts, so cells may be
    compared. The interval speaks of other prompts drawn like these, not of
    other models or other templates.

    Args:
        values: score of every prompt, under every patch.
        n: number of resamples.
        level: share of the resampled means that the interval covers.
        seed: seed of the resamples; the same seed gives the same interval.

    Returns:
        An interval per cell. With one prompt there is nothing to resample, and
        the bounds are nan.

    Source:
        Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    if values.ndim == 0 or values.shape[-1] == 0:
        raise MetricError(
            f"bootstrap got scores of shape {list(values.shape)}, expected [*cells, prompt] with "
            "at least one prompt. Pass one score per prompt, not their mean."
        )
    if not 0 < level < 1 or n < 1:
        raise MetricError(
            f"bootstrap got level={level}, n={n}, expected 0 < level < 1 and n ≥ 1. "
            "Try level=0.95, n=1000."
        )
    *cells, prompts = values.shape
    mean = values.mean(-1)
    if prompts == 1:
        nan = torch.full_like(mean, torch.nan)
        return Interval(mean, nan, nan, level)
    weights = resamples(prompts, n, seed).to(values.device)
    flat = values.detach().double().reshape(-1, prompts)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2]).to(flat)
    # In pieces: torch.quantile refuses inputs of more than 16 million numbers.
    pieces = [torch.quantile(part @ weights, ends, dim=-1) for part in flat.split(4096)]
    low, high = torch.cat(pieces, dim=-1).to(values.dtype).reshape(2, *cells)
    return Interval(mean, low, high, level)


def resamples(prompts: int, n: int, seed: int) -> Float[Tensor, "prompt resample"]:
    """How often each prompt is drawn in each resample, as a share of the draws."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(prompts, (prompts, n), generator=generator)
    counts = torch.zeros(prompts, n, dtype=torch.float64)
    return counts.scatter_add_(0, draws, torch.ones_like(counts)) / prompts
