"""Labels that say nothing: what would a probe read if there were nothing to read?

*Shuffled labels* go through the same folds and fits. Where every document has one label, whole
documents swap labels; else labels are shuffled over all examples. A probe scores at chance.

A *control task* gives each word type a random label. Nothing in a language model can help with it
but the word's identity, so a probe that scores well is one that memorises words; what counts is
**selectivity**, the score above the control task's. It asks something only where words of the test
folds also occur in training (``seen``).

Source: Hewitt & Liang 2019, arXiv:1909.03368, sections 2 and 3. A type's label is drawn from the
labels' own distribution.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

__all__ = ["control_task", "seen", "shuffled"]


def shuffled(
    targets: Float[np.ndarray, " n"],
    documents: Int[np.ndarray, " n"],
    count: int,
    seed: int,
    folds: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "count n"]:
    """``count`` permutations of the labels.

    Args:
        folds: where they were dealt by these labels: labels are shuffled within each, and folds
            of one size swap theirs, so that shuffled classes are as even over folds as the true
            ones. (Uneven folds score below chance, and anything would look better than that.)
    """
    rng = np.random.default_rng([seed, 0])
    first = np.unique(documents, return_index=True)[1]
    whole = bool((targets[first][documents] == targets).all())
    values, dealt = (targets[first], folds if folds is None else folds[first]) if whole else (
        targets, folds)  # fmt: skip
    rows = [_permuted(values, dealt, rng) for _ in range(count)]
    rows = [row[documents] for row in rows] if whole else rows
    return np.stack(rows) if rows else np.zeros((0, len(targets)))


def _permuted(
    values: Float[np.ndarray, " n"], folds: Int[np.ndarray, " n"] | None, rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    if folds is None:
        return rng.permutation(values)
    out = values.copy()
    places = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    for size in sorted({len(place) for place in places}):
        alike = [place for place in places if len(place) == size]
        for to, source in zip(alike, rng.permutation(len(alike)), strict=True):
            out[to] = rng.permutation(values[alike[source]])
    return out


def control_task(
    targets: Float[np.ndarray, " n"], types: Int[np.ndarray, " n"], count: int, seed: int
) -> Float[np.ndarray, "count n"]:
    """``count`` random labellings of the types; none where there are fewer than two types.

    A labelling that gives every type one label is drawn again.
    """
    rng = np.random.default_rng([seed, 1])
    n_types = int(types.max()) + 1
    rows: list[np.ndarray] = []
    while n_types > 1 and len(rows) < count:
        labels = rng.choice(targets, size=n_types)[types]
        if (labels != labels[0]).any():
            rows.append(labels)
    return np.stack(rows) if rows else np.zeros((0, len(targets)))


def seen(types: Int[np.ndarray, " n"], folds: Int[np.ndarray, " n"]) -> float:
    """Share of examples whose type also stands in the folds that their probe was trained on."""
    known = [np.isin(types[folds == f], types[folds != f]) for f in np.unique(folds)]
    return float(np.concatenate(known).mean())
