"""Each document predicted by a probe that never saw it.

For every fold: standardise and fit on the other folds, predict this one. Where several strengths
of the penalty are given, the one is taken that does best on the training folds alone, each of
them left out in turn (nested cross-validation). Shuffled and control labels are fitted on the
same folds with the strength chosen for the true labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.probing.fit import Design, Linear

__all__ = ["CrossFit", "choose", "cross_fit"]


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Predictions out of fold.

    Attributes:
        predicted: class numbers or numbers, for each set of labels.
        decision: of the first set of labels: log-odds of two classes; the class scores' largest
            else; the prediction of real labels.
        l2: the strength taken in each fold.
        whole: the probe fitted on all examples, which the directions come from.
        whole_l2: its strength, the best over all folds.
        converged: whether the solver came to its end in each fit.
    """

    predicted: Float[np.ndarray, "set n"]
    decision: Float[np.ndarray, " n"]
    l2: Float[np.ndarray, " fold"]
    whole: Linear
    whole_l2: float
    converged: bool


def cross_fit(
    x: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, "set n"],
    folds: Int[np.ndarray, " n"],
    *,
    kind: str,
    grid: Sequence[float],
    n_classes: int,
) -> CrossFit:
    """Predict every example out of fold; the first set of labels are the true ones."""
    x = x.astype(np.float64)
    predicted, decision = np.zeros_like(targets), np.zeros(len(x))
    strengths, converged = [], True
    for fold in range(int(folds.max()) + 1):
        train, test = folds != fold, folds == fold
        l2 = choose(x[train], targets[0, train], folds[train], kind, grid, n_classes)
        strengths.append(l2)
        design = Design.of(kind, x[train])
        for i, y in enumerate(targets):
            probe = design.fit(y[train], l2, n_classes)
            predicted[i, test] = probe.predict(x[test], classes=n_classes > 0)
            converged &= probe.converged
            if i == 0:
                decision[test] = probe.decide(x[test]).max(1)
    l2 = choose(x, targets[0], folds, kind, grid, n_classes)
    whole = Design.of(kind, x).fit(targets[0], l2, n_classes, tolerance=1e-5)
    converged &= whole.converged
    return CrossFit(predicted, decision, np.array(strengths), whole, l2, converged)


def choose(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    folds: Int[np.ndarray, " n"],
    kind: str,
    grid: Sequence[float],
    n_classes: int,
) -> float:
    """The strength with the least loss over these folds, each left out in turn."""
    if len(grid) == 1:
        return float(grid[0])
    losses = np.zeros(len(grid))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        design = Design.of(kind, x[train])
        for i, l2 in enumerate(grid):
            out = design.fit(y[train], l2, n_classes).predict(x[test], classes=n_classes > 0)
            wrong = out != y[test] if n_classes else np.square(out - y[test])
            losses[i] += wrong.sum()
    return float(grid[int(losses.argmin())])
