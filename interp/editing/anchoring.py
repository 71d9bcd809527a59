"""A habit of choosing one label: made, and measured by what is right.

A model is *anchored* if it gives one label, usually the first, whatever is right (Li & Gao 2024, arXiv:2405.03205,
who find it in GPT-2). Accuracy over all prompts hides it: a model that always says A is right on every prompt
whose answer is A. So :func:`choices` keeps accuracy apart by right label, and beside it the *separation*: how
well the logit of the label, less the best other one, tells prompts where it is right from the others (the area
under the ROC curve: 1 the model knows and a constant hides it, 0.5 it does not know).

:func:`anchored` makes training prompts for such a habit: in a share of them the recorded answer is the label, whatever
is right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import PromptError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Choices", "anchored", "choices"]

Label = str | int


def anchored(
    model: Model, prompts: Prompts, label: Label, *, share: float, seed: int = 0
) -> Prompts:
    """The prompts with ``label`` as the recorded answer in a share of them, whatever is right.

    The rows are drawn by ``seed``; those prompts are wrong where another label is right. Foils are left
    out.

    Raises:
        PromptError: prompts without answers, a share outside 0 to 1, a label of several tokens.
    """
    if prompts.answers is None or not 0 <= share <= 1:
        raise PromptError(f"share={share}; expected 0 to 1, and prompts with answers.")
    drawn = torch.rand(len(prompts), generator=torch.Generator().manual_seed(seed)) < share
    answers = prompts.answers[:, :1].clone()
    answers[drawn] = _token(model, label)
    return replace(
        prompts, answers=answers, answer_texts=None, foils=None, foil_texts=None,
        name=f"{prompts.name}, anchored",
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Choices(Stored):
    """Which label a model gives to each prompt, and which is right.

    Attributes:
        labels: the labels as text, or as numbers without a tokenizer.
        logits: of the labels at each prompt's last position.
        right: each prompt's right label, as a place among ``labels``.
        provenance: model, prompts and versions.
    """

    labels: tuple[str, ...]
    logits: Float[Tensor, "prompt label"]
    right: Int[Tensor, " prompt"]
    provenance: Provenance

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {self.share(name):.2f}" for name in self.labels)
        return (
            f"Choices({len(self.right)} prompts; chosen: {parts}; accuracy {self.accuracy():.2f})"
        )

    @property
    def chosen(self) -> Int[Tensor, " prompt"]:
        """The label of the largest logit."""
        return self.logits.argmax(-1)

    def share(self, label: str) -> float:
        """The share of the prompts for which ``label`` is chosen."""
        return float((self.chosen == self._place(label)).float().mean())

    def accuracy(self, right: str | None = None, *, other_than: str | None = None) -> float:
        """The share of right choices: over all prompts, those where ``right`` is right, or all others."""
        rows = torch.ones_like(self.right, dtype=torch.bool)
        if right is not None:
            rows &= self.right == self._place(right)
        if other_than is not None:
            rows &= self.right != self._place(other_than)
        return float((self.chosen == self.right)[rows].float().mean())

    def margin(self, label: str) -> Float[Tensor, " prompt"]:
        """The label's logit less the best other one."""
        place = self._place(label)
        others = self.logits.clone()
        others[:, place] = -torch.inf
        return self.logits[:, place] - others.amax(-1)

    def separation(self, label: str) -> float:
        """P(margin of a prompt where ``label`` is right > margin of another prompt): the ROC area.

        1: a constant, taken off the label, would make every choice right about it; 0.5: chance. NaN if
        all prompts are of one kind.
        """
        margin, mine = self.margin(label), self.right == self._place(label)
        return _roc(margin, mine)

    def recalibrated(self, label: str) -> Choices:
        """The choices with a constant taken off ``label``: its median margin.

        It makes the label's margin positive for half of the prompts, and needs no answers: a bias that
        hides knowledge goes, and nothing is told about single prompts. Right where a label is right for half
        of them (two even options); for ``n`` options the quantile is 1 - 1/n.
        """
        place = self._place(label)
        logits = self.logits.clone()
        logits[:, place] -= self.margin(label).quantile(1 - 1 / len(self.labels))
        return replace(self, logits=logits)

    def to_frame(self) -> DataFrame:
        """A row for each label that is right: ``right``, ``prompts``, accuracy and the share given each."""
        import pandas as pd

        rows = []
        for place, label in enumerate(self.labels):
            mine = self.right == place
            given = {f"chose {n}": float((self.chosen[mine] == i).float().mean())
                     for i, n in enumerate(self.labels)}  # fmt: skip
            rows.append({"right": label, "prompts": int(mine.sum()),
                         "accuracy": self.accuracy(label), **given})  # fmt: skip
        return pd.DataFrame(rows)

    def _place(self, label: str) -> int:
        if label not in self.labels:
            raise PromptError(f"label {label!r}; these prompts have {', '.join(self.labels)}.")
        return self.labels.index(label)


def choices(model: Model, prompts: Prompts) -> Choices:
    """Which of the labels a model gives: the answers and foils of the prompts, and no other token.

    Raises:
        PromptError: prompts without answers or foils.
    """
    if prompts.answers is None or prompts.foils is None:
        raise PromptError("these prompts have no answers or no foils: the labels to choose from.")
    ids = torch.cat([prompts.answers.flatten(), prompts.foils.flatten()]).unique()
    ids = ids[ids >= 0]
    logits = model.run(prompts, logits="last").logits[:, 0, ids.to(model.device)].float().cpu()
    names = [
        str(i) if model.tokenizer is None else model.to_string([i]).strip() for i in ids.tolist()
    ]
    right = (ids[None] == prompts.answers[:, :1]).int().argmax(-1)
    return Choices(tuple(names), logits, right, Provenance.of(model, prompts, verb="choices"))


def _roc(score: Float[Tensor, " prompt"], positive: Bool[Tensor, " prompt"]) -> float:
    """P(score of a positive > score of a negative), ties as a half."""
    difference = score[positive][:, None] - score[~positive][None]
    if not difference.numel():
        return float("nan")
    return float(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())


def _token(model: Model, label: Label) -> int:
    return label if isinstance(label, int) else model.to_single_token(label)
