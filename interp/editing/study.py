"""Does localization inform editing? Each fact edited at each layer, beside where tracing found it.

Causal tracing says in which layers a fact is read out of the subject. If that were where it is best
edited, the rewrite score would follow the tracing effect. Hase et al. 2023 (arXiv:2301.04213) found
that it hardly does: the choice of the layer explains the score, and tracing adds almost nothing to it
(ΔR² of at most a few per cent), whichever way an edit is asked for (:mod:`.objectives`).

Controls: each edit beside a random change of the same kind and norm, which must not rewrite; and
tracing fractions shuffled among facts and layers, which must explain nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.editing.cases import EditCase
from interp.editing.finetuning import FineTuning, finetune
from interp.editing.objectives import Objective, Variant
from interp.editing.prefixes import sampled_prefixes
from interp.editing.rank_one import as_json, rome
from interp.editing.rome_config import Rome
from interp.editing.scores import compared, read_case
from interp.editing.second_moments import Covariance
from interp.editing.study_result import SCORES, LocalizationStudy
from interp.editing.variants import objective, subject_std
from interp.editing.weight_edit import WeightEdit, norm_matched
from interp.errors import MetricError, PromptError, warn
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance

__all__ = ["localization_study"]


def localization_study(
    model: Model,
    cases: Sequence[EditCase],
    *,
    tracing: Float[Tensor, "fact layer"] | Sequence[Sequence[float]],
    covariance: Covariance | None = None,
    method: Rome | FineTuning | None = None,
    variant: Variant = "error injection",
    layers: Sequence[int] | None = None,
    noise: float = 3.0,
    seed: int = 0,
    progress: bool | None = None,
) -> LocalizationStudy:
    """Edit every fact at every layer and score it, beside its tracing fractions.

    Ctrl-C ends it early: cells that were not reached are nan, and left out of the regressions.

    Args:
        cases: the facts, see :func:`interp.editing.capital_cases`.
        tracing: fraction of the answer's probability that restoring each layer wins back, for each
            fact and each of ``layers``, in their order.
        covariance: of the keys of these layers; ROME needs it, fine-tuning does not.
        method: Rome (the default) or FineTuning, with their numbers.
        variant: what to ask of each edit.
        layers: None for all.
        noise: multiple of the subjects' embedding std, for the variants that need noise.
        seed: of the prefixes, the noise, the random changes and the shuffles.

    Raises:
        MetricError: the tracing fractions are not [fact, layer].
        PromptError: no cases; a variant that a case does not allow.
    """
    method = method or Rome()
    chosen = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    trace = torch.as_tensor(tracing, dtype=torch.float32).detach().cpu()
    if not cases or trace.shape != (len(cases), len(chosen)):
        raise MetricError(
            f"tracing is {list(trace.shape)} for {len(cases)} facts and {len(chosen)} layers: "
            "expected one fraction for each fact and layer, and at least one fact."
        )
    if isinstance(method, Rome) and covariance is None:
        raise PromptError(
            "ROME needs the covariance of this model's keys: give covariance=editing.covariance("
            "model, texts), or method=FineTuning()."
        )
    std = subject_std(model, cases)
    goals = [objective(variant, model, case, noise=noise, std=std, seed=seed) for case in cases]
    lengths = method.prefixes if isinstance(method, Rome) else ()
    prefixes = sampled_prefixes(model, lengths=lengths, seed=seed) if lengths else ()
    found = {name: torch.full(trace.shape, torch.nan) for name in SCORES}
    with (
        _interruptible(found),
        Bar(total=trace.numel(), what="edits", show=progress, least=8) as bar,
    ):
        for row, (case, goal) in enumerate(zip(cases, goals, strict=True)):
            before = read_case(model, case, objective=goal)
            for column, layer in enumerate(chosen):
                edit = _edit(model, case, goal, layer, method, covariance, prefixes)
                drawn = seed + row * len(chosen) + column  # each cell its own
                cell = _scored(model, edit, case, goal, before, drawn)
                for name, value in cell.items():
                    found[name][row, column] = value
                bar.advance()
    origin = Provenance.of(
        model, seed=seed, verb="localization_study", variant=variant, layers=list(chosen),
        method={"name": type(method).__name__, **as_json(method)}, noise=noise,
        covariance=None if covariance is None else covariance.n_tokens,
        cases=[as_json(case) for case in cases],
    )  # fmt: skip
    return LocalizationStudy(
        layers=chosen,
        subjects=tuple(case.subject for case in cases),
        variant=variant,
        trace=trace,
        provenance=origin,
        **found,
    )


@contextmanager
def _interruptible(found: Mapping[str, Tensor]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        scores = found["rewrite"]
        done = int(scores.isfinite().sum())
        warn(f"interrupted: {done} of {scores.numel()} edits are scored; the others are nan.")


def _edit(
    model: Model,
    case: EditCase,
    goal: Objective,
    layer: int,
    method: Rome | FineTuning,
    covariance: Covariance | None,
    prefixes: Sequence[str],
) -> WeightEdit:
    if isinstance(method, FineTuning):
        return finetune(model, case.prompt, goal, layer=layer, config=method, subjects=case.subject)
    return rome(
        model, case.prompt, case.subject, goal,
        layer=layer, covariance=covariance, config=method, prefixes=prefixes,
    )  # fmt: skip


def _scored(
    model: Model, edit: WeightEdit, case: EditCase, goal: Objective, before: Any, seed: int
) -> dict[str, float]:
    """Scores of an edit and, as ``null_…``, of a random change of its norm."""
    out: dict[str, float] = {}
    for prefix, change in (("", edit), ("null_", norm_matched(edit, seed=seed))):
        with model.edited(change.changes):
            after = read_case(model, case, objective=goal)
        scores = compared(before, after, lower=goal.lower).to_dict()
        out |= {prefix + name: value for name, value in scores.items() if prefix + name in SCORES}
    return out
