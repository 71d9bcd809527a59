"""Labelled options: where labels stand, where heads look among them, and effects centred over them.

A prompt of :func:`interp.prompts.mcq` names its labels ``A``, ``B``, ... (whatever word stands there) and what
they stand for ``option_A``, .... Lieberum et al. 2023 (arXiv:2307.09458) centre logits over the labels: a part that
raises all letters alike chooses none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError
from interp.pipelines.attending import share_at
from interp.pipelines.behaviour import Behaviour, columns
from interp.prompts.prompts import Prompts

__all__ = ["BEHIND", "above", "against_all", "label_columns", "labels_of", "looks", "single"]

#: How far behind a label, or the end of an option, a head may look at it.
BEHIND: Final = {"letter": 1, "option": 2}


def labels_of(prompts: Prompts) -> tuple[str, ...]:
    """The labels' names that every prompt has: ``("A", "B", "C", "D")``.

    Raises:
        PromptError: these prompts have no labelled options.
    """
    found = tuple(
        name.removeprefix("option_") for name in prompts.positions if name.startswith("option_")
    )
    if len(found) < 2 or not {*found, "correct"} <= set(prompts.positions):
        raise PromptError(
            f"these prompts name the positions {', '.join(prompts.positions)}; expected labelled options, "
            "'A' with 'option_A' and so on, and 'correct': see interp.prompts.mcq."
        )
    return found


def label_columns(prompts: Prompts, *, behind: int = 1) -> Int[Tensor, "prompt place"]:
    """The columns of every label and of ``behind`` tokens after each, none after the last token."""
    found = [columns(prompts, label) + b for label in labels_of(prompts) for b in range(behind + 1)]
    return torch.stack(found, 1).minimum(prompts.answer_column[:, None])


def against_all(prompts: Prompts) -> Prompts:
    """The same prompts with every other label as a foil: scores are centred over the labels.

    Where each prompt draws labels of its own, they are the tokens at its own label positions; there
    each must be the token that answers (the labels stand behind a space there and here). So it is where
    the prompts are so few that not every label is some prompt's answer or foil.

    Raises:
        PromptError: no labelled options, no answers and foils, or labels that cannot be told.
    """
    names = labels_of(prompts)
    if prompts.answers is None or prompts.foils is None:
        raise PromptError("these prompts have labelled options; expected answers and foils too.")
    rows = torch.stack(
        [prompts.clean.ids.gather(1, prompts.columns(name)[:, None])[:, 0] for name in names], 1
    )
    drawn = rows.sort(-1).values
    every = torch.cat([prompts.answers.flatten(), prompts.foils.flatten()]).unique()
    every = every[every >= 0]
    alike = bool((drawn == drawn[0]).all())  # the same labels everywhere, in whatever order
    if alike and len(every) >= len(names):
        listed = [[int(i) for i in every if i != a] for a in prompts.answers[:, 0]]
        return replace(prompts, foils=torch.tensor(listed), foil_texts=None)
    right = rows == prompts.answers[:, :1].to(rows)
    if not bool((right.sum(-1) == 1).all()):
        raise PromptError(
            f"among {rows.shape[1]} labels the answer of some prompt is not found once: expected prompts whose "
            "answer is the very token that labels its option, or more prompts that all have the same labels."
        )
    others = rows[~right].view(len(prompts), -1)
    return replace(prompts, foils=others, foil_texts=None)


def looks(
    shares: Float[Tensor, "layer head prompt key"],
    prompts: Prompts,
    labels: Sequence[str],
    what: str,
) -> Float[Tensor, "label layer head prompt"]:
    """Attention to each letter, or option, and to the tokens behind it; the end itself left out."""
    found = []
    for label in labels:
        column = columns(prompts, label if what == "letter" else f"option_{label}")
        total = torch.zeros(shares.shape[:3])
        for behind in range(BEHIND[what] + 1):
            inside = column + behind < prompts.answer_column
            there = share_at(shares, (column + behind).minimum(prompts.answer_column)).cpu()
            total += there * inside
        found.append(total)
    return torch.stack(found)


def above(
    seen: Float[Tensor, "label layer head prompt"], prompts: Prompts, labels: Sequence[str]
) -> Float[Tensor, "layer head prompt"]:
    """Attention to the right one, less the mean of the others."""
    right = torch.stack([prompts.columns(label) == prompts.columns("correct") for label in labels])
    right = right[:, None, None].to(seen)
    return (seen * right).sum(0) - (seen * (1 - right)).sum(0) / (len(labels) - 1)


def single(seen: Float[Tensor, "label layer head prompt"]) -> Behaviour:
    """Attention to the one letter that a head looks at most, over all prompts."""
    most = seen.mean(-1).argmax(0)
    chosen = seen.gather(0, most[None, ..., None].expand(1, *seen.shape[1:]))[0]
    return Behaviour.of_heads("attention END→one letter", "share", chosen)
