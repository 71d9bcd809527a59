"""What an edit did: to the fact, to other ways of asking, to other facts, to the subject.

Scores are those of Hase et al. 2023 (arXiv:2301.04213, section 5): how far of the way that was left
the probability went, so that facts which were half there count as much as others.

    rewrite     1 − (1 − p_post) / (1 − p_pre)     of the target; 1 − p_pre at least 2e-8
    erasure     max(0, (p_pre − p_post) / p_pre)   of the true answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.editing.cases import EditCase
from interp.editing.objectives import Objective
from interp.editing.request import Request, target_ids
from interp.editing.value import logits_of
from interp.editing.weight_edit import WeightEdit
from interp.models.edited import Value
from interp.models.model import Model
from interp.runs.execute import forward
from interp.token_batch import TokenBatch

__all__ = ["EditScores", "Readings", "compared", "erasure_score", "evaluate_edit", "read_case",
           "rewrite_score"]  # fmt: skip

_FLOOR: Final = 2e-8


@dataclass(frozen=True)
class EditScores:
    """Scores of one edit on one case; nan where the case has nothing to score.

    Attributes:
        rewrite: share of the way that the objective asks for: to p = 1 (a target to raise; below 0
            if it fell), or to p = 0 (a target to lower). Under the objective's noise, if any.
        paraphrase: the same on the paraphrases, averaged, without noise.
        neighbours_kept: of the neighbours whose top token was right, the share where it still is.
        erasure: how much of the true answer's probability is gone, 0 to 1.
        essence_drift: KL(before ‖ after) of what follows "{subject} is a", in nats; 0 is none.
        target_before, target_after: p of the objective's target.
        answer_before, answer_after: p of the true answer.
    """

    rewrite: float
    paraphrase: float
    neighbours_kept: float
    erasure: float
    essence_drift: float
    target_before: float
    target_after: float
    answer_before: float
    answer_after: float

    def to_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Readings:
    """What a model says to the prompts of one case."""

    target: Float[Tensor, " copy"]
    answer: Float[Tensor, ""]
    paraphrases: Float[Tensor, " paraphrase"]
    neighbours: tuple[bool, ...]
    essence: Float[Tensor, " d_vocab"] | None


def evaluate_edit(
    model: Model,
    edit: WeightEdit | Mapping[str, Value],
    case: EditCase,
    *,
    objective: Objective | None = None,
    essence: str | None = "{subject} is a",
    samples: int = 10,
) -> EditScores:
    """Score an edit on a case; the model is as before afterwards.

    Args:
        edit: a WeightEdit, or what ``model.edited`` takes.
        objective: what the edit was to do; None: raise the case's target.
        essence: the prompt for the drift of the subject; None for none.
        samples: draws of the objective's noise, over which p is averaged.

    Raises:
        ModelError: the edit was made for other weights.
        PromptError: a prompt of the case does not suit the tokenizer.
    """
    options: dict[str, Any] = {"objective": objective, "essence": essence, "samples": samples}
    before = read_case(model, case, **options)
    with model.edited(edit):
        after = read_case(model, case, **options)
    return compared(before, after, lower=objective is not None and objective.lower)


def compared(before: Readings, after: Readings, *, lower: bool = False) -> EditScores:
    """Scores from what was said before and after.

    Args:
        lower: whether the target was to become less probable.
    """
    score = erasure_score if lower else rewrite_score
    means = before.target.mean(), after.target.mean()
    kept = [b for a, b in zip(before.neighbours, after.neighbours, strict=True) if a]
    drift = torch.tensor(torch.nan)
    if before.essence is not None and after.essence is not None:
        p = before.essence.exp()
        drift = (p * (before.essence - after.essence)).sum().clamp(min=0)
    return EditScores(
        rewrite=float(score(*means)),
        paraphrase=float(score(before.paraphrases, after.paraphrases).mean()),
        neighbours_kept=sum(kept) / len(kept) if kept else float("nan"),
        erasure=float(erasure_score(before.answer, after.answer)),
        essence_drift=float(drift),
        target_before=float(means[0]),
        target_after=float(means[1]),
        answer_before=float(before.answer),
        answer_after=float(after.answer),
    )


def rewrite_score(
    before: Float[Tensor, "*cells"], after: Float[Tensor, "*cells"]
) -> Float[Tensor, "*cells"]:
    """1 − (1 − after) / (1 − before): 1 is certainty, 0 no change, below 0 less than before.

    The probability that was left, 1 − before, counts as 2e-8 at least.

    >>> rewrite_score(torch.tensor(0.5), torch.tensor(0.75))
    tensor(0.5000)
    """
    return 1 - (1 - after) / (1 - before).clamp(min=_FLOOR)


def erasure_score(
    before: Float[Tensor, "*cells"], after: Float[Tensor, "*cells"]
) -> Float[Tensor, "*cells"]:
    """max(0, (before − after) / before): 1 is gone, 0 as likely as before or more."""
    return ((before - after) / before.clamp(min=1e-30)).clamp(min=0)


@torch.no_grad()
def read_case(
    model: Model,
    case: EditCase,
    *,
    objective: Objective | None = None,
    essence: str | None = "{subject} is a",
    samples: int = 10,
) -> Readings:
    """What the model says to the prompts of a case, as it is now."""
    goal = objective or Objective(case.target)
    copies = 1 if goal.noise is None else samples
    request = Request.of(
        model, case.prompt, case.subject, goal, copies=copies, essence=essence
    )  # fmt: skip
    logits = logits_of(model.anatomy, request)
    last = None if essence is None else logits[-1, request.batch.column(-1)[-1]]
    ids = target_ids(model, case.prompt, goal.target)
    asked = [(case.prompt, target_ids(model, case.prompt, case.answer))]
    asked += [(text, ids) for text in case.paraphrases]
    right = [(text, target_ids(model, text, answer)) for text, answer in case.neighbours]
    probs, top = _said(model, [*asked, *right])
    n = len(asked)
    return Readings(
        target=_probability(logits, request),
        answer=probs[0],
        paraphrases=probs[1:n],
        neighbours=tuple(top[n + i] == answer[0] for i, (_, answer) in enumerate(right)),
        essence=None if last is None else last.float().log_softmax(-1).cpu(),
    )


def _probability(logits: Tensor, request: Request) -> Float[Tensor, " copy"]:
    rows, columns = request.predicted
    log_probs = logits[rows, columns].float().log_softmax(-1)
    ids = torch.tensor(request.target, device=logits.device).expand(len(rows), -1)
    return log_probs.gather(-1, ids[..., None])[..., 0].sum(-1).exp().cpu()


def _said(
    model: Model, asked: Sequence[tuple[str, Sequence[int]]]
) -> tuple[Float[Tensor, " row"], list[int]]:
    """p of a continuation of each text (all its tokens), and the top token behind the text."""
    rows = [model.tokens.encode(text).ids[0].tolist() for text, _ in asked]
    whole = TokenBatch.stack(
        [row + list(ids[:-1]) for row, (_, ids) in zip(rows, asked, strict=True)]
    )
    logits = forward(model.anatomy, model.tokens.take(whole).to(model.device)).float()
    probs, top = [], []
    for row, (tokens, (_, ids)) in enumerate(zip(rows, asked, strict=True)):
        at = logits[row, len(tokens) - 1 : len(tokens) - 1 + len(ids)]
        chosen = at.log_softmax(-1).gather(-1, torch.tensor([ids], device=at.device).T)
        probs.append(chosen.sum().exp())
        top.append(int(at[0].argmax()))
    return torch.stack(probs).cpu(), top
