"""Texts with labels to probe for, as binary tasks split into training and test texts.

Two classes make one task; more make a task for each class against a balanced draw of the others, as
SAEBench does. Texts that share a *group* (the same country, say) stand on one side of the split, so that a
probe cannot answer by remembering them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from interp.errors import PromptError
from interp.prompts import examples, facts
from interp.prompts.templates import fill, prompt_part

__all__ = ["Task", "Tasks", "demo_tasks", "tasks_of"]

#: Task → (texts, labels) or (texts, labels, groups).
Tasks = Mapping[
    str, tuple[Sequence[str], Sequence[Any]] | tuple[Sequence[str], Sequence[Any], Sequence[Any]]
]
_LEAST = 4  # texts of a class on each side of a split


@dataclass(frozen=True, eq=False)
class Task:
    """A binary task on some of a data set's texts.

    Attributes:
        name: ``"task"``, or ``"task/class"`` for one class against the others.
        data: the data set whose texts these are.
        train, test: numbers of texts.
        label: of every text of the data set, 1 for the class.
    """

    name: str
    data: str
    train: Int[np.ndarray, " n"]
    test: Int[np.ndarray, " m"]
    label: Int[np.ndarray, " text"]


def tasks_of(data: Tasks, *, test: float, seed: int) -> tuple[Task, ...]:
    """Binary tasks of some data sets.

    Raises:
        PromptError: texts, labels and groups that do not fit together, or too few of a class.
    """
    if not isinstance(data, Mapping) or not data:
        raise PromptError(
            "probing has no data; expected 'demo' or {'task': (texts, labels)}, with one label a text."
        )
    return tuple(task for name, given in data.items() for task in _tasks(name, given, test, seed))


def _tasks(name: str, given: Any, test: float, seed: int) -> list[Task]:
    texts, labels, groups = _checked(name, given)
    classes = sorted(set(labels), key=str)
    rng = np.random.default_rng([seed, len(texts)])
    held = _held_out(groups if groups is not None else list(range(len(texts))), test, rng)
    chosen = classes[-1:] if len(classes) == 2 else classes
    out = []
    for one in chosen:
        label = np.array([own == one for own in labels]).astype(int)
        sides = [_balanced(labels, one, side, rng) for side in (~held, held)]
        for side, what in zip(sides, ("training", "test"), strict=True):
            if label[side].sum() < _LEAST:
                raise PromptError(
                    f"task {name!r} has {int(label[side].sum())} {what} texts of {one!r} or of the other "
                    f"classes; expected {_LEAST} at least: give more texts, or fewer in a group."
                )
        full = name if len(classes) == 2 else f"{name}/{one}"
        out.append(Task(full, name, sides[0], sides[1], label))
    return out


def _checked(name: str, given: Any) -> tuple[list[str], list[Hashable], list[Hashable] | None]:
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise PromptError(
            f"task {name!r} is a {type(given).__name__}; expected (texts, labels), or (texts, labels, "
            "groups)."
        )
    texts, labels = list(given[0]), list(given[1])
    groups = list(given[2]) if len(given) == 3 else None
    if len(labels) != len(texts) or (groups is not None and len(groups) != len(texts)):
        counts = f"{len(texts)} texts, {len(labels)} labels" + (
            "" if groups is None else f", {len(groups)} groups"
        )
        raise PromptError(f"task {name!r} has {counts}; expected as many of each.")
    if len(set(labels)) < 2:
        raise PromptError(f"task {name!r} has {len(set(labels))} class; expected two at least.")
    return texts, labels, groups


def _held_out(groups: Sequence[Hashable], share: float, rng: np.random.Generator) -> Bool[np.ndarray, " text"]:  # fmt: skip
    """Which texts are test texts: whole groups."""
    kinds = sorted(set(groups), key=str)
    count = max(1, math.floor(share * len(kinds)))
    chosen = {kinds[i] for i in rng.permutation(len(kinds))[:count]}
    return np.array([group in chosen for group in groups])


def _balanced(
    labels: Sequence[Hashable], one: Hashable, side: Bool[np.ndarray, " text"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:  # fmt: skip
    """As many texts of one class as of all others, these in equal parts as far as there are some."""
    places: dict[Hashable, Any] = {
        kind: rng.permutation([i for i in np.flatnonzero(side).tolist() if labels[i] == kind])
        for kind in sorted(set(labels), key=str)
    }
    own = places.pop(one)
    each = math.ceil(len(own) / len(places))
    others = rng.permutation(np.concatenate([place[:each] for place in places.values()]))
    n = min(len(own), len(others))
    return np.concatenate([own[:n], others[:n]]).astype(np.int64)


def demo_tasks(n: int = 600, *, seed: int = 0) -> Tasks:
    """What can be asked of the demo model's texts, offline.

    ``relation``: which of four facts about a country a text is about (its words say so).
    ``continent``: where the country that it names lies; the test countries are not in training.
    ``ioi``: whether the name that is repeated came first. All names are there in either case, so the
    words without their order do not tell.
    """
    about = [(name, *cell) for name in facts.relation_names() for cell in facts.cells(name)]
    rng = np.random.default_rng([seed, 7])
    drawn = [about[i] for i in rng.permutation(len(about))[:n]]
    kinds = [(_ask(name, template, country["country"]), name) for name, template, country in drawn]
    places = [
        (_ask("continent", template, country["country"]), country["continent"], country["country"])
        for template, country in facts.cells("continent")
    ]
    common = [one for one in places if one[1] in ("Africa", "Asia", "Europe")]
    names = examples.ioi(n, seed)
    first = ["first" if one.spans["S1"] < one.spans["IO"] else "second" for one in names]
    return {
        "relation": ([text for text, _ in kinds], [name for _, name in kinds]),
        "continent": (
            [t for t, _, _ in common],
            [k for _, k, _ in common],
            [c for _, _, c in common],
        ),
        "ioi": ([one.clean for one in names], first),
    }


def _ask(name: str, template: int, country: str) -> str:
    text = prompt_part(facts.relation(name).templates[template], "object")
    return fill(text, {"subject": country})[0]
