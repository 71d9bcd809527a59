"""The plan that every site's probe shares: labels, documents, folds, and labels that say nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import MetricError, PromptError
from interp.probing.controls import shuffled
from interp.probing.fit import CLASSIFIERS, GRIDS, KINDS
from interp.probing.scoring import METRICS
from interp.probing.targets import deal, encode, evenly, flat, number

__all__ = ["Study", "digest", "per_example", "plan"]


@dataclass(frozen=True, eq=False)
class Study:
    """What every site's probe shares.

    Attributes:
        targets: the true labels, then the shuffled ones.
        classes: their names; None for real labels.
        grid: strengths of the penalty, the strongest first.
        controls: how many control tasks to draw.
    """

    targets: Float[np.ndarray, "set n"]
    classes: tuple[str, ...] | None
    documents: Int[np.ndarray, " n"]
    folds: Int[np.ndarray, " n"]
    kind: str
    grid: tuple[float, ...]
    metric: str
    controls: int
    seed: int


def plan(
    labels: list[Any], groups: list[Any], kind: str, folds: int,
    l2: float | Sequence[float] | None, metric: str | None, shuffles: int, draws: int, seed: int,
) -> tuple[Study, dict[str, Any]]:  # fmt: skip
    """Everything about labels, checked; and what the provenance says of it."""
    if kind not in KINDS:
        raise MetricError(f"kind={kind!r}; expected one of {', '.join(KINDS)}.")
    is_class = kind in CLASSIFIERS
    metric = metric or ("accuracy" if is_class else "r2")
    valid = [m for m in METRICS if (m == "r2") != is_class]
    if metric not in valid:
        raise MetricError(
            f"metric={metric!r} with kind={kind!r}; expected one of {', '.join(valid)}."
        )
    for name, value in {
        "shuffles": shuffles,
        "controls": draws,
        "seed": seed,
        "folds": folds,
    }.items():
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
            raise MetricError(f"{name}={value!r}; expected a whole number, 0 or more.")
    grid = _strengths(kind, l2, folds)
    targets, classes = encode(labels, classes=is_class)
    documents, _ = number(groups)
    dealt = deal(targets, documents, folds, seed, classes)
    even = dealt if is_class and evenly(targets, folds) else None
    everything = np.concatenate([targets[None], shuffled(targets, documents, shuffles, seed, even)])
    import sklearn

    record = {
        "kind": kind, "metric": metric, "folds": folds, "l2": list(grid), "shuffles": shuffles,
        "controls": draws, "labels": digest(labels), "documents": digest(documents.tolist()),
        "solver": f"scikit-learn {sklearn.__version__}",
    }  # fmt: skip
    return Study(everything, classes, documents, dealt, kind, grid, metric, draws, seed), record


def _strengths(kind: str, l2: float | Sequence[float] | None, folds: int) -> tuple[float, ...]:
    given = GRIDS[kind] if l2 is None else (l2,) if isinstance(l2, int | float | str) else tuple(l2)
    if l2 is not None and kind in ("linear", "mean"):
        raise MetricError(f"l2={l2!r}: kind={kind!r} has no penalty; leave l2 out.")
    least = 0.0 if kind == "ridge" else 1e-12
    fits = all(isinstance(s, int | float) and least <= s < np.inf for s in given)
    if not given or (kind in ("logistic", "ridge") and not fits):
        raise MetricError(f"l2={l2!r}; expected positive numbers, such as 0.01 or (1, 0.1, 0.01).")
    if len(given) > 1 and folds < 3:
        raise MetricError(
            f"folds={folds} leave one training fold, and none to choose l2 on: give 3 or more "
            "folds, or one l2 such as 0.01."
        )
    return tuple(sorted((float(s) for s in given), reverse=True))


def per_example(
    given: Any, n: int, what: str, counted: Bool[Tensor, "batch pos"] | None
) -> list[Any]:
    """One value for each example; [batch, pos] is cut down to the tokens that count.

    Raises:
        PromptError: another number of values.
    """
    values = flat(given)
    if counted is None:
        expected, fits = f"{n}, one for each example", len(values) == n
    else:
        expected = f"{counted.numel()}, [batch, pos] = {list(counted.shape)}"
        fits = len(values) == counted.numel()
        if fits:
            values = [values[i] for i in counted.flatten().nonzero()[:, 0].tolist()]
    if not fits:
        raise PromptError(f"{what}= has {len(values)} entries; expected {expected}.")
    return values


def digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(repr(list(values)).encode()).hexdigest()
