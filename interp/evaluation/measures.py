"""What is measured: each metric is a ratio of two sums over tokens.

With y what the model has at the written site, ŷ what the dictionary writes in its place, e = ŷ − y and
ȳ the mean of y over the scored tokens (ȳ' over other texts):

=============================  ==================================================================
fvu                            Σ‖e‖² / Σ‖y − ȳ‖², fraction of variance unexplained: 0 exact, 1 as good
                               as the mean, above 1 worse than it
explained_variance             1 − fvu (SAELens's since its version 6, SAEBench's "correct" one)
explained_variance_legacy      mean of 1 − ‖e‖² / ‖y − ȳ'‖² over tokens, SAELens's and SAEBench's older
                               one. Tokens near the mean dominate it. There ȳ is each batch's own
mse                            mean squared error of a number. (SAELens: summed over the numbers)
relative_l2                    mean of ‖e‖ / ‖y‖
cosine                         mean of ŷ·y / ‖ŷ‖‖y‖, not centred; 0 where nothing is written
norm_ratio                     mean of ‖ŷ‖ / ‖y‖ (SAEBench's l2_ratio): below 1 is shrinkage
relative_reconstruction_bias   γ = Σ‖ŷ‖² / Σ ŷ·y; below 1: smaller than is best in its direction
                               (Rajamanoharan et al. 2024a, arXiv:2404.16014, eq. 10)
l0, l1                         active features of a token; the sum of their activations
dead                           share of features active in no scored token
dead_log10_4                   share of features active in at most 10⁻⁴ of the tokens; "live" in
                               Dunefsky et al. 2024 (arXiv:2406.11944) is log10 frequency > −4
ce_original … ce_mean          next-token cross-entropy in nats: of the model, with the dictionary
                               spliced in, with zero and with the mean ȳ' in the place of y
ce_recovered_zero, _mean       (ce_ablated − ce_spliced) / (ce_ablated − ce_original): 1 nothing is
                               lost, 0 as bad as the ablation ("loss recovered", Cunningham et al.
                               2023, arXiv:2309.08600, and Bricken et al. 2023); not a number where
                               the model only guesses (own loss above 0.95 log d_vocab)
kl                             KL(original ‖ spliced) at a token, in nats
top1_agreement                 share of tokens at which both have the same top token
=============================  ==================================================================

Intervals are over texts, since tokens of one text are not independent: with s_t, n_t the two sums of
text t and r = Σs/Σn, the variance of r is about T/(T−1) · Σ(s_t − r n_t)² / (Σn)² (Cochran 1977, Sampling
Techniques, §6.4), and the interval ± 1.96 of its root. With few texts it is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.geometry.moments import summing_device

__all__ = ["MEASURES", "MIN_GAP", "Measure", "Sums", "columns", "estimate", "products"]

#: For each column the sums over each text's tokens.
Sums = Mapping[str, Float[Tensor, " text"]]
#: Nats of loss: a smaller gap between ablated and original run is none to divide by.
MIN_GAP = 1e-3
_Z = 1.959964


@dataclass(frozen=True)
class Measure:
    """A metric as a ratio of sums of columns; counts of features have none.

    Attributes:
        over, under: columns with their factors.
        unit: of the value.
        least: the smallest mean denominator, for each token, that is worth dividing by.
    """

    name: str
    unit: str
    over: Mapping[str, int]
    under: Mapping[str, int]
    least: float = 0.0


def _mean(name: str, unit: str, column: str, count: str = "tokens") -> Measure:
    return Measure(name, unit, {column: 1}, {count: 1})


def _recovered(ablated: str) -> Measure:
    return Measure(
        f"ce_recovered_{ablated}", "share",
        {f"ce_{ablated}": 1, "ce_spliced": -1}, {f"ce_{ablated}": 1, "ce_original": -1}, MIN_GAP,
    )  # fmt: skip


MEASURES: dict[str, Measure] = {
    one.name: one
    for one in (
        Measure("fvu", "share", {"error": 1}, {"variance": 1}),
        Measure("explained_variance", "share", {"variance": 1, "error": -1}, {"variance": 1}),
        _mean("explained_variance_legacy", "share", "explained"),
        Measure("mse", "squared activation", {"error": 1}, {"numbers": 1}),
        _mean("relative_l2", "share", "relative_l2", "written"),
        _mean("cosine", "cosine", "cosine", "written"),
        _mean("norm_ratio", "share", "norm_ratio", "written"),
        Measure("relative_reconstruction_bias", "share", {"out_out": 1}, {"out_y": 1}),
        _mean("l0", "features", "l0"),
        _mean("l1", "activation", "l1"),
        Measure("dead", "share", {}, {}),
        Measure("dead_log10_4", "share", {}, {}),
        *(
            _mean(f"ce_{run}", "nats", f"ce_{run}", "predictions")
            for run in ("original", "spliced", "zero", "mean")
        ),
        _recovered("zero"),
        _recovered("mean"),
        _mean("kl", "nats", "kl"),
        _mean("top1_agreement", "share", "agree"),
    )
}


def products(
    y: Float[Tensor, "row d"], out: Float[Tensor, "row d"], mean: Float[Tensor, " d"]
) -> Float[Tensor, "6 row"]:
    """What a token's reconstruction is judged by: ‖e‖², ‖y − ȳ'‖², ‖y‖², ‖ŷ‖², ŷ·y, width; float64.

    Those of several sites are added up: then the sites count as one long vector.

    Args:
        y: what the model has.
        out: what is written in its place.
        mean: of y over other texts.
    """
    y, out, mean = (x.to(summing_device(x), torch.float64) for x in (y, out, mean))
    out, mean = out.to(y.device), mean.to(y.device)
    error, spread = out - y, y - mean
    pairs = ((error, error), (spread, spread), (y, y), (out, out), (out, y))
    found = [(a * b).sum(-1) for a, b in pairs]
    return torch.stack([*found, torch.full_like(found[0], y.shape[-1])]).cpu()


def columns(found: Float[Tensor, "6 row"]) -> dict[str, Float[Tensor, " row"]]:
    """The columns of :func:`products`."""
    error, spread, y_y, out_out, out_y, width = found
    there = y_y > 0  # nothing but zeros has no direction, and no length to share

    def share(over: Tensor, under: Tensor) -> Tensor:
        return torch.where(under > 0, over / under.where(under > 0, 1.0), 0.0) * there

    return {
        "tokens": torch.ones_like(error),
        "numbers": width,
        "written": there.double(),
        "error": error,
        "spread": spread,
        "explained": 1 - error / spread.where(spread > 0, torch.nan),
        "out_out": out_out,
        "out_y": out_y,
        "relative_l2": share(error.sqrt(), y_y.sqrt()),
        "cosine": share(out_y, (out_out * y_y).sqrt()),
        "norm_ratio": share(out_out.sqrt(), y_y.sqrt()),
    }


def estimate(measure: Measure, sums: Sums) -> tuple[float, float, float]:
    """Value and interval of a metric; NaN where its columns are missing or its denominator is none."""
    if not measure.under or not {*measure.over, *measure.under} <= sums.keys():
        return math.nan, math.nan, math.nan
    over, under = (
        torch.stack([sums[name] * factor for name, factor in side.items()]).sum(0)
        for side in (measure.over, measure.under)
    )
    count = sums["predictions"].sum() if measure.least else torch.ones(())
    total = float(under.sum())
    if not total > measure.least * float(count):
        return math.nan, math.nan, math.nan
    value, texts = float(over.sum()) / total, len(over)
    if texts < 2:
        return value, math.nan, math.nan
    squares = float((over - value * under).square().sum())
    half = _Z * math.sqrt(texts / (texts - 1) * squares) / total
    return value, value - half, value + half
