"""How much of a score do layer and tracing explain? Linear regressions and their R².

    layer            one mean for each layer
    trace            an intercept and a slope
    layer + trace    a mean for each layer, one slope
    layer × trace    a mean and a slope for each layer

If tracing told where to edit, adding it to the layer would raise R² (Hase et al. 2023, section 5).
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError

__all__ = ["DESIGNS", "r_squared", "regressions"]

DESIGNS: Final = ("layer", "trace", "layer + trace", "layer × trace")


def regressions(
    scores: Float[Tensor, "fact layer"], trace: Float[Tensor, "fact layer"]
) -> dict[str, float]:
    """R² of each design, over all cells where both are numbers.

    Raises:
        MetricError: the shapes differ, fewer cells than coefficients, or scores that do not vary.
    """
    if scores.shape != trace.shape or scores.ndim != 2:
        raise MetricError(
            f"scores are {list(scores.shape)} and tracing fractions {list(trace.shape)}: expected "
            "[fact, layer] for both, facts and layers in the same order."
        )
    kept = scores.isfinite() & trace.isfinite()
    layers = torch.arange(scores.shape[1]).expand_as(scores)[kept]
    y, x = scores[kept].double(), trace[kept].double()[:, None]
    means = torch.nn.functional.one_hot(layers, scores.shape[1]).double()
    means = means[:, means.any(0)]
    if len(y) <= 2 * means.shape[1] or y.var() < 1e-12:
        raise MetricError(
            f"{len(y)} scores in {means.shape[1]} layers, with variance {float(y.var()):.2g}: a "
            "regression needs more scores than two for each layer, and scores that differ."
        )
    columns = {
        "layer": means,
        "trace": torch.cat([torch.ones_like(x), x], 1),
        "layer + trace": torch.cat([means, x], 1),
        "layer × trace": torch.cat([means, means * x], 1),
    }
    return {name: r_squared(y, columns[name]) for name in DESIGNS}


def r_squared(y: Float[Tensor, " cell"], x: Float[Tensor, "cell column"]) -> float:
    """Share of the variance of ``y`` that a linear fit by the columns of ``x`` explains.

    Least squares by SVD, so columns that depend on others (a layer whose trace is 0 for every fact)
    do no harm. ``x`` should hold an intercept, else values below 0 are possible.
    """
    fit = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution
    rest = (y[:, None] - x @ fit).square().sum()
    return float(1 - rest / (y - y.mean()).square().sum())
