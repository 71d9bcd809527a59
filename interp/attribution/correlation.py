"""Do two measurements of the same cells agree? Correlations, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.geometry.correlation import Pairs, pearson, ranks, spearman
from interp.intervals import Interval

__all__ = ["correlated", "pearson", "ranks", "spearman"]


def correlated(
    of: Callable[[Pairs, Pairs], Tensor],
    x: Float[Tensor, "cell prompt"],
    y: Float[Tensor, "cell prompt"],
    *,
    n: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A correlation over cells of the means over prompts, with a bootstrap over **prompts**.

    Both sides see the same ``n`` resamples. The interval speaks of other prompts like these and
    the same cells; with one prompt its bounds are nan.
    """
    mean = of(x.mean(-1), y.mean(-1))
    prompts = x.shape[-1]
    if prompts == 1:
        return Interval(mean, torch.full_like(mean, torch.nan), torch.full_like(mean, torch.nan))
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(prompts, (n, prompts), generator=generator)
    share = torch.zeros(n, prompts, dtype=torch.double)
    share.scatter_add_(1, draws, torch.ones_like(share)).div_(prompts)
    found = of(share @ x.double().T, share @ y.double().T)
    low, high = torch.nanquantile(found, torch.tensor([(1 - level) / 2, (1 + level) / 2]).double())
    return Interval(mean, low, high, level)
