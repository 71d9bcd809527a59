"""Scores of predictions out of fold, with an interval over documents.

Each score is a ratio of sums over examples (or the mean of one for each class), so a document's
share of it is known and documents can be drawn again.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.geometry.correlation import ranks
from interp.intervals import Interval

__all__ = ["METRICS", "auc", "interval", "naive", "parts", "ratio", "score"]

#: Name → unit.
METRICS: Final = {
    "accuracy": "share of examples",
    "balanced_accuracy": "mean over classes of the share of examples",
    "r2": "share of variance",
}

Labels = Float[Tensor, " n"]
Predicted = Float[Tensor, "*sets n"]


def score(
    metric: str, predicted: Predicted, labels: Float[Tensor, "*sets n"], folds: Int[Tensor, " n"]
) -> Float[Tensor, "*sets"]:
    """The score of predictions over all examples, each predicted out of fold.

    ``accuracy`` and ``balanced_accuracy`` lie in 0 to 1. ``r2`` is 1 for perfect predictions, 0
    for those of the training folds' mean, and below 0 for worse ones.
    """
    over, under = parts(metric, predicted, labels, folds)
    return ratio(metric, over.sum(-1), under.sum(-1))


def interval(
    metric: str,
    predicted: Float[Tensor, "site n"],
    labels: Labels,
    folds: Int[Tensor, " n"],
    documents: Int[Tensor, " n"],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over documents of the score; probes are not fitted again.

    It speaks of other documents like these under the same probes, and so leaves out that other
    training documents would give other probes.
    """
    over, under = parts(metric, predicted, labels.expand_as(predicted), folds)
    count = int(documents.max()) + 1
    over, under = (
        torch.zeros(*x.shape[:-1], count).double().index_add_(-1, documents, x.expand_as(over))
        for x in (over, under)
    )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (count, draws), generator=generator)
    times = torch.zeros(count, draws).double()
    times.scatter_add_(0, drawn, torch.ones_like(times))
    found = ratio(metric, over @ times, under @ times, draws=True)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2]).to(found)
    low, high = torch.nanquantile(found, ends, dim=-1)
    mean = ratio(metric, over.sum(-1), under.sum(-1))
    return Interval(mean.float(), low.float(), high.float(), level)


def naive(labels: Labels, folds: Int[Tensor, " n"]) -> Labels:
    """What a probe of real labels that sees nothing predicts: the training folds' mean."""
    out = torch.zeros_like(labels)
    for fold in folds.unique():
        out[folds == fold] = labels[folds != fold].mean()
    return out


def auc(
    decision: Float[Tensor, "site n"], labels: Labels, folds: Int[Tensor, " n"]
) -> Float[Tensor, " site"]:
    """Chance that an example of the second class has higher log-odds than one of the first.

    Mean over folds that have both classes (log-odds of two probes are not compared); ties count
    one half. 0.5 = nothing is read; NaN where no fold has both classes.
    """
    out = []
    for fold in folds.unique():
        mine = folds == fold
        second = labels[mine] == 1
        n, m = int((~second).sum()), int(second.sum())
        if n and m:  # Mann-Whitney: how far up the ranks of the second class reach
            out.append((ranks(decision[:, mine])[:, second].sum(-1) - m * (m + 1) / 2) / (n * m))
    return torch.stack(out).mean(0) if out else decision.new_full(decision.shape[:1], torch.nan)


def parts(
    metric: str, predicted: Predicted, labels: Predicted, folds: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "*sets part n"], Float[Tensor, "*sets part n"]]:
    """What each example adds to the numerators and denominators."""
    predicted, labels = predicted.double(), labels.double()
    if metric == "r2":
        average = torch.stack([naive(y, folds) for y in labels.reshape(-1, len(folds))])
        around = (labels - average.view_as(labels)).square()
        return (labels - predicted).square()[..., None, :], around[..., None, :]
    right = (predicted == labels).double()[..., None, :]
    if metric == "accuracy":
        return right, torch.ones_like(right)
    classes = torch.arange(int(labels.max()) + 1).to(labels)[:, None]
    member = (labels[..., None, :] == classes).double()
    return right * member, member


def ratio(metric: str, over: Tensor, under: Tensor, *, draws: bool = False) -> Tensor:
    """Numerators by denominators, the mean over classes; of errors, what is left of 1."""
    part = over / under  # NaN where a class was not drawn
    mean = part.nanmean(-2 if draws else -1)
    return 1 - mean if metric == "r2" else mean
