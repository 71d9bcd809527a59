"""Labels as numbers, documents as numbers, and documents dealt out to folds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError

__all__ = ["deal", "encode", "evenly", "flat", "number"]


def flat(given: Any) -> list[Any]:
    """Labels, types or documents of any container as one flat list of Python values.

    Raises:
        PromptError: they are no list, or one of them is no word or number.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise PromptError(
            f"labels, types and documents were given as {type(given).__name__} {given!r:.60}; expected a "
            "list or a tensor, one word or number for each example."
        )
    if isinstance(given, Tensor | np.ndarray):
        return list(given.reshape(-1).tolist())
    out: list[Any] = []
    for one in given:
        nested = isinstance(one, Sequence | Tensor | np.ndarray) and not isinstance(one, str)
        if nested and getattr(one, "shape", None) != ():
            out += flat(one)
        else:
            value = one.item() if hasattr(one, "item") else one
            if not isinstance(value, Hashable):
                raise PromptError(
                    f"{value!r:.60} is no label: expected a word or a number for each example."
                )
            out.append(value)
    return out


def number(given: Sequence[Any]) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """A number for each different value, in order of first appearance, and their names."""
    seen = {value: i for i, value in enumerate(dict.fromkeys(given))}
    return np.array([seen[value] for value in given]), tuple(str(value) for value in seen)


def encode(labels: Sequence[Any], *, classes: bool) -> tuple[Float[np.ndarray, " n"],
                                                            tuple[str, ...] | None]:  # fmt: skip
    """Labels as class numbers with the classes' names, or as real numbers with None.

    Raises:
        PromptError: NaN or missing labels, fractions as classes, words as numbers, or labels that
            are all the same.
    """
    bad = [
        i
        for i, y in enumerate(labels)
        if y is None or (isinstance(y, float) and not math.isfinite(y))
    ]
    if bad:
        raise PromptError(
            f"label {bad[0]} is {labels[bad[0]]!r} ({len(bad)} such labels); expected a class or a "
            "finite number for each. Leave those examples out."
        )
    kinds = sorted(set(labels), key=lambda y: (isinstance(y, str), y))
    if len(kinds) < 2:
        raise PromptError(
            f"all {len(labels)} labels are {kinds[0]!r}: there is nothing to tell apart; expected at "
            "least two values."
        )
    if not classes:
        if any(isinstance(y, str) for y in kinds):
            raise PromptError(
                f"labels such as {next(y for y in kinds if isinstance(y, str))!r} are no numbers; "
                "for classes use kind='logistic'."
            )
        return np.array(labels, dtype=np.float64), None
    if any(isinstance(y, float) and y != int(y) for y in kinds):
        raise PromptError(
            f"labels such as {next(y for y in kinds if y != int(y))} are no classes; for real "
            "numbers use kind='ridge', or cut them into classes."
        )
    place = {y: i for i, y in enumerate(kinds)}
    return np.array([place[y] for y in labels], dtype=np.float64), tuple(str(y) for y in kinds)


def evenly(targets: Float[np.ndarray, " n"], folds: int) -> bool:
    """Whether some class has an example for each fold, so that folds can have like shares of it."""
    return int(np.unique(targets, return_counts=True)[1].max()) >= folds


def deal(
    targets: Float[np.ndarray, " n"],
    documents: Int[np.ndarray, " n"],
    folds: int,
    seed: int,
    classes: tuple[str, ...] | None,
) -> Int[np.ndarray, " n"]:
    """The fold of each example: a document is in one fold only, classes as even as can be.

    Raises:
        PromptError: fewer documents than folds, or a class that only one document has.
    """
    n = int(documents.max()) + 1
    if not 2 <= folds <= n:
        raise PromptError(
            f"folds={folds} of {n} documents; expected 2 to {n}: examples of one document never "
            "stand on both sides. Give more documents or fewer folds."
        )
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    even = classes is not None and evenly(targets, folds)

    for i, name in enumerate(classes or ()):
        if len(set(documents[targets == i].tolist())) == 1:
            raise PromptError(
                f"class {name!r} occurs in one document only, so no probe could learn it and be "
                "tested on it. Leave it out, or give finer documents=."
            )
    kind = StratifiedGroupKFold if even else GroupKFold
    splitter = kind(n_splits=folds, shuffle=True, random_state=seed)
    out = np.zeros(len(targets), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes rarer than folds are fine here
        for fold, (_, test) in enumerate(splitter.split(targets[:, None], targets, documents)):
            out[test] = fold
    return out
