"""``interp.steer``: how does the behaviour answer to the strength of a vector?

1. Run the prompts with the vector added at several strengths, and score each run: a dose-response
   curve. A direction that the model uses moves the metric the same way all along.
2. Do the same with random directions of the same length. What they do, pushing does.
3. On neutral text, how far does each push the model from itself (KL) and how much worse does it
   predict (nll)? A strength that breaks the model steers nothing.

Sources: Turner et al. 2023, arXiv:2308.10248; Rimsky et al. 2023, arXiv:2312.06681 (multipliers on
held-out questions, layer by layer, and the cost on general ability).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp import metrics, scores
from interp.errors import RunError
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.setup import names_of, on_device
from interp.progress import Bar
from interp.prompts.positions import resolve_columns
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.edits import Edit
from interp.runs.execute import execute
from interp.steering.ablation import asked_of, default_metric
from interp.steering.result import SteeringResult
from interp.steering.vector import SteeringVector
from interp.token_batch import TokenBatch

__all__ = ["steer"]

Batch = int | Literal["auto"]
_CHUNK = 16  # neutral texts at a time: their logits are kept at every position
_STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)


@torch.no_grad()
def steer(
    model: Model,
    prompts: Any,
    vector: SteeringVector,
    strengths: Sequence[int | float] = _STRENGTHS,
    *,
    metric: str | Metric | Callable[..., Tensor] | None = None,
    positions: int | str | Sequence[int | str] | None = None,
    start: int | str | None = None,
    draws: int = 20,
    neutral: Any = None,
    answers: Any = None,
    foils: Any = None,
    seed: int = 0,
    batch: Batch = "auto",
    progress: bool | None = None,
) -> SteeringResult:
    """Score prompts under a vector at several strengths, beside random vectors of its length.

    >>> interp.steer(model, heldout, vector.at("L3.resid_pre")).summary()   # doctest: +SKIP

    Runs the prompts ``1 + sites × strengths × (1 + draws)`` times.

    Args:
        prompts: Prompts (their clean side), text or tokens. Others than the vector was made from.
        vector: of one or several sites; each site is steered alone.
        strengths: multiples of the vector, at least two; they are put in ascending order.
        metric: as in :func:`interp.patch`. None: ``logit_diff`` where there are foils, else ``log_prob``.
        positions, start: where the vector is added (:meth:`SteeringVector.edit`); None: everywhere.
        draws: how many random directions; the smallest p-value is ``1 / (1 + draws)``.
        neutral: texts that have nothing to do with the contrast, for the side effects.
        answers, foils: for text: the tokens compared; without answers, the model's own top tokens.
        seed: of the random directions: ``seed``, ``seed + 1``, ...

    Raises:
        RunError: strengths that are no curve, or a negative ``draws``.
        ModelError: the vector is of another width than the model.
        SiteError, PromptError, MetricError: as in :func:`interp.patch`.
    """
    doses = _doses(strengths)
    if isinstance(draws, bool) or not hasattr(draws, "__index__") or draws < 0:
        raise RunError(f"draws={draws!r}; expected a number of random vectors, 0 for none.")
    if not isinstance(vector, SteeringVector):
        raise RunError(
            f"vector= is a {type(vector).__name__}; expected a SteeringVector, as "
            "interp.steering_vector makes it. For a tensor use edit={site: interp.Add(tensor)}."
        )
    vector.check(model)
    asked = asked_of(model, prompts, answers, foils)
    how = metrics.resolve(default_metric(asked) if metric is None else metric)
    score, baseline = _scorer(model, asked, how, batch)
    aside = None if neutral is None else _neutral(model, neutral)
    plain = None if aside is None else _side_effects(model, aside, [{}])[0]
    randoms = [vector.random_like(seed + i) for i in range(draws)]
    total = len(vector.sites) * len(doses) * (1 + draws)
    with Bar(total=total, what="steering", show=progress) as bar:

        def curve(one: SteeringVector, site: str) -> tuple[Tensor, Tensor | None]:
            """Scores [strength, prompt] and side effects [strength, 2]."""
            edits = [one.at(site).edit(dose, positions=positions, start=start) for dose in doses]
            found = []
            for edit in edits:
                found.append(score(edit))
                bar.advance()
            beside = None if aside is None else _side_effects(model, aside, edits)
            return torch.stack(found), beside

        own = [curve(vector, site) for site in vector.sites]
        null = [[curve(one, site) for one in randoms] for site in vector.sites]
    shape = (len(vector.sites), draws, len(doses))
    per_prompt = torch.stack([found for found, _ in own])
    return SteeringResult(
        sites=vector.sites,
        strengths=doses,
        values=per_prompt.mean(-1),
        per_prompt=per_prompt,
        baseline=baseline,
        control=_stacked([found.mean(-1) for row in null for found, _ in row], shape),
        relative_norm=vector.relative_norm,
        reliability=vector.reliability,
        side_effects=None if aside is None else torch.stack([beside for _, beside in own]),  # type: ignore[misc]
        control_side_effects=None if aside is None
        else _stacked([beside for row in null for _, beside in row], (*shape, 2)),
        neutral_nll=None if plain is None else float(plain[1]),
        metric=how.name,
        unit=how.unit,
        answers=names_of(model, asked.answers),
        foils=names_of(model, asked.foils),
        provenance=Provenance.of(
            model, asked, seed=seed, verb="steer", sites=list(vector.sites), strengths=list(doses),
            metric=how.name, positions=positions if positions is None or isinstance(positions, int | str)
            else list(positions), start=start, draws=draws, method=vector.method,
            read_at=vector.positions, vector_prompts=vector.provenance.prompts_hash,
            neutral=None if aside is None else aside.hash,
        ),
    )  # fmt: skip


def _doses(strengths: Sequence[int | float]) -> tuple[float, ...]:
    """At least two different finite strengths, in ascending order."""
    try:
        doses = tuple(sorted({float(s) for s in strengths}))
    except (TypeError, ValueError):
        doses = ()
    if len(doses) < 2 or not all(math.isfinite(dose) for dose in doses):
        raise RunError(
            f"strengths={strengths!r}; expected at least two different numbers, such as "
            "(-2, -1, 0, 1, 2)."
        )
    return doses


def _stacked(parts: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    return torch.stack(list(parts)).view(shape) if parts else torch.zeros(shape)


def _scorer(
    model: Model, asked: Prompts, how: Metric, batch: Batch
) -> tuple[Callable[[Mapping[str, Edit]], Float[Tensor, " prompt"]], Float[Tensor, " prompt"]]:
    """A function from an edit to each prompt's score, and the scores without one."""
    moved = on_device(asked, model.device)
    where = partial(resolve_columns, tokens=moved.clean, named=dict(moved.positions))
    kind: Literal["last", "all"] = "last" if how.positions == "answer" else "all"

    def logits(edit: Mapping[str, Edit]) -> Tensor:
        return execute(
            model.anatomy, moved.clean, edit=edit, logits=kind, rows_at_once=batch, columns=where
        ).logits

    first = logits({})

    def scored(out: Tensor) -> Float[Tensor, " prompt"]:
        if how.positions == "answer":
            return metrics.at_answer(how, out[:, 0], moved, reference=first[:, 0]).cpu()
        return metrics.evaluate(how, out, moved).cpu()

    return (lambda edit: scored(logits(edit))), scored(first)


def _neutral(model: Model, given: Any) -> Prompts:
    asked = given if isinstance(given, Prompts) else model.prompts(given)
    return replace(asked, corrupted=None, corrupted_texts=None, corrupted_str_tokens=None)


def _side_effects(
    model: Model, asked: Prompts, edits: Sequence[Mapping[str, Edit]]
) -> Float[Tensor, "edit 2"]:
    """KL(plain ‖ edited) and the edited run's nll, in nats per token, each prompt counting alike."""
    sums = torch.zeros(len(edits), 2, dtype=torch.float64)
    for begin in range(0, len(asked), _CHUNK):
        part = asked.subset(slice(begin, begin + _CHUNK))
        batch = part.clean.to(model.device)
        columns = {name: c.to(model.device) for name, c in part.positions.items()}
        where = partial(resolve_columns, tokens=batch, named=columns)
        first = execute(model.anatomy, batch).logits
        for i, edit in enumerate(edits):
            out = execute(model.anatomy, batch, edit=edit, columns=where).logits if edit else first
            sums[i] += torch.stack([_kl(first, out, batch).sum(),
                                    scores.nll(out.float(), batch.ids, batch.mask).sum()]).cpu()  # fmt: skip
    return (sums / len(asked)).float()


def _kl(
    plain: Float[Tensor, "prompt pos vocab"],
    edited: Float[Tensor, "prompt pos vocab"],
    batch: TokenBatch,
) -> Float[Tensor, " prompt"]:
    """Mean KL(plain ‖ edited) over each prompt's real tokens."""
    flat = scores.kl(edited.float().flatten(0, 1), None, None, plain.float().flatten(0, 1))
    kl = flat.view_as(batch.ids)
    return torch.where(batch.mask, kl, torch.zeros_like(kl)).sum(-1) / batch.n_real
