"""From the name of an editing variant to what it asks of one fact (see :mod:`.objectives`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.editing.cases import EditCase
from interp.editing.objectives import Objective, Variant, check_variant
from interp.editing.request import Request, target_ids
from interp.editing.value import logits_of
from interp.errors import PromptError
from interp.models.model import Model
from interp.runs.edits import Noise
from interp.tracing.subject import embedding_std, find_subject

__all__ = ["objective", "subject_std"]


@torch.no_grad()
def objective(
    variant: Variant,
    model: Model,
    case: EditCase,
    *,
    noise: float = 3.0,
    std: float | None = None,
    samples: int = 10,
    seed: int = 0,
) -> Objective:
    """What one of the five variants asks of a fact.

    Args:
        variant: ``"error injection"``, ``"tracing reversal"``, ``"fact erasure"``, ``"fact
            amplification"`` or ``"fact forcing"``.
        noise: standard deviation of the noise, as a multiple of ``std`` (ROME: 3).
        std: of the subjects' embeddings, see :func:`subject_std`; None: of this case's subject.
        samples: noised runs over which "what the model says" is averaged in tracing reversal.
        seed: of the noise.

    Raises:
        PromptError: no such variant; under noise the model still gives the true answer, so that
            there is nothing to reverse to.

    Source:
        Hase et al. 2023, arXiv:2301.04213, section 5.
    """
    check_variant(variant)
    if variant == "error injection":
        return Objective(case.target)
    if variant in ("fact erasure", "fact amplification"):
        return Objective(case.answer, lower=variant == "fact erasure")
    noisy = Noise(noise * (subject_std(model, [case]) if std is None else std), seed)
    forcing = Objective(case.answer, noise=noisy)
    if variant == "fact forcing":
        return forcing
    request = Request.of(model, case.prompt, case.subject, forcing, copies=samples)
    rows, columns = request.predicted
    said = logits_of(model.anatomy, request)[rows, columns[:, :1]].float().softmax(-1)
    top = int(said.mean(0)[0].argmax())
    if top == target_ids(model, case.prompt, case.answer)[0]:
        raise PromptError(
            f"with noise={noise:g} the model still says {case.answer!r} after {case.prompt!r}: there "
            "is no corrupted output to reverse to. Raise noise, take samples=1, or leave this case out."
        )
    return Objective(top)


def subject_std(model: Model, cases: Sequence[EditCase]) -> float:
    """Standard deviation of the token embeddings of some subjects, as tracing measures it."""
    prompts = model.prompts([case.prompt for case in cases])
    span = find_subject(model, prompts, [case.subject for case in cases])
    return embedding_std(model, prompts, span, None)
