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
    targets: Float[np.ndarray, " n"], documents: Int[np.ndarray, " n"], count: int, seed: int
) -> Float[np.ndarray, "count n"]:
    """``count`` permutations of the labels."""
    rng = np.random.default_rng([seed, 0])
    first = np.unique(documents, return_index=True)[1]
    of_document = targets[first]
    if (of_document[documents] == targets).all():
        rows = [rng.permutation(of_document)[documents] for _ in range(count)]
    else:
        rows = [rng.permutation(targets) for _ in range(count)]
    return np.stack(rows) if rows else np.zeros((0, len(targets)))


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
