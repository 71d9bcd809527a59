"""``interp.attribute``: an estimate of every patch of a sweep from a few passes.

``interp.patch`` runs the model once for each cell. Here the effect of each cell is estimated
from the gradient of the metric, all cells at once; ``interp.compare`` says how well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, Final, Literal, overload

import torch
from jaxtyping import Int
from torch import Tensor

from interp import metrics
from interp.attribution.donors import Giver
from interp.attribution.drop import by_dropping
from interp.attribution.edges.result import EdgeScores
from interp.attribution.edges.verb import EDGE_METHODS, EdgeMethod, attribute_edges
from interp.attribution.first_order import by_gradient
from interp.attribution.integrated import by_integration
from interp.attribution.part import Part
from interp.attribution.parts import Plan
from interp.attribution.result import AttributionResult
from interp.attribution.softmax import by_softmax
from interp.errors import MetricError, RunError
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.cells import Positions, lay_out
from interp.patching.setup import arguments, names_of, on_device, with_answers
from interp.patching.sources import Direction, Source, pick_direction
from interp.patching.verb import sites_text, source_text
from interp.progress import Bar
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.frozen import frozen

__all__ = ["Method", "attribute"]

Method = Literal["gradient", "integrated", "atp-qk", "atp*"]
_METHODS: Final = ("gradient", "integrated", "atp-qk", "atp*")
#: Metrics that are steps of the logits: their gradient is 0 wherever it exists.
_STEPS: Final = ("rank", "accuracy", "diff_accuracy")


@overload
def attribute(
    model: Model, prompts: Any, sites: Literal["edges"], **options: Any
) -> EdgeScores: ...
@overload
def attribute(model: Model, prompts: Any, *rest: Any, **options: Any) -> AttributionResult: ...
def attribute(
    model: Model,
    prompts: Prompts | str | Sequence[str] | Int[Tensor, "prompt pos"],
    *rest: Any,
    metric: str | Metric | Callable[..., Tensor] = "logit_diff",
    method: Method | EdgeMethod | None = None,
    steps: int | None = None,
    direction: Direction | None = None,
    source: Source = None,
    positions: Positions = None,
    answers: Any = None,
    foils: Any = None,
    reference: Prompts | None = None,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    progress: bool | None = None,
    **of_edges: Any,
) -> AttributionResult | EdgeScores:
    """Estimate what ``interp.patch`` would do in each cell, without running the cells.

    With ``"edges"`` for the sites: a score for each edge of the model's graph, see below.

    ``attribute(model, prompts, sites)`` takes aligned Prompts; ``attribute(model, clean,
    corrupted, sites)`` takes two strings, two lists of strings, or two token tensors. Cells,
    axes, sources and directions are those of :func:`interp.patch`. A value is the change of the
    metric against the run that would be edited, in the metric's unit, for each prompt; positive
    means that the patch raises the metric.

    The estimate is first order: exact where the metric is linear between the two values, and
    wrong where it bends. Known failures: a saturated softmax has no gradient (``"atp-qk"`` is
    for that), effects that cancel in the gradient (``"atp*"``), LayerNorm and large changes,
    above all in the residual stream. Check with :func:`interp.compare` on a few prompts. A cell
    of several sites (``"L1.z + L2.z"``) gets the sum of theirs, which counts twice what passes
    from one to the other.

    >>> interp.attribute(model, pairs, "L*.H*.z")                           # doctest: +SKIP
    AttributionResult(layer 4 × head 6; estimated change of logit_diff (logits): ...)

    Args:
        sites: what would be patched; each wildcard, range or list makes an axis.
        metric: ``logit_diff``, ``prob``, ``prob_diff``, ``log_prob``, ``kl``, ``nll``, or a
            differentiable callable ``(logits [prompt, pos, vocab], prompts) -> [prompt]``.
        method: how to estimate, with what it costs beside one run of the other side (None:
            ``"gradient"``):
            ``"gradient"``: (source - run) · ∂metric/∂a, one forward and one backward pass.
            ``"integrated"``: the gradient averaged along the line from the run's tensor to the
            source's, ``steps`` forward and backward passes for each point of each layer. All
            positions and heads of a tensor move together, so its cells sum to the exact effect
            of patching it whole; a cell's share is not its effect alone.
            ``"atp-qk"``: as ``"gradient"``, but for q, k, rot_q and rot_k the softmax is
            computed exactly; one or two more forward passes. Other sites are as ``"gradient"``.
            ``"atp*"``: ``"atp-qk"`` with the gradient through one layer's branches dropped at a
            time, absolute values averaged over layers: **unsigned**. One backward pass for each
            layer.
        steps: of ``"integrated"``: α = (k - 1/2) / steps for k = 1..steps, where 0 is the run's
            value and 1 the source's. None: 10.
        direction, source, positions, answers, foils, reference: as in :func:`interp.patch`.
        seed: of ``source="resample"`` and ``"noise"``.
        batch: prompts at a time, or ``"auto"``: as many as fit.
        progress: show a bar; None shows one for long work if a person can see it.

    **Edges**: ``attribute(model, prompts, "edges", method=...)`` scores every edge of
    :class:`interp.Graph` and returns :class:`EdgeScores`. A score is metric(edge ablated) -
    metric(nothing ablated): negative means that the edge helps. Methods: ``"exact"`` ablates each edge
    alone; ``"eap"`` and ``"eap-ig"`` (None means the latter) estimate all of them from gradients
    (:mod:`interp.attribution.edges.eap`), ``"eap-ig-activations"`` from gradients while each group
    of nodes is on its way (:mod:`~interp.attribution.edges.activations`), ``"atp-qk"`` and ``"atp*"``
    with the softmax computed exactly (:mod:`~interp.attribution.edges.atp`; the latter **unsigned**);
    ``"information-flow"`` ablates nothing, needs no pairs, and gives **unsigned** shares of what each
    destination reads (:mod:`~interp.attribution.edges.information_flow`).
    Options beside metric, steps (5), reference, batch and progress: ``direction="noise"`` (edges are ablated in the clean run) or ``"denoise"`` (in the
    corrupted run, which gets clean values); ``positions=("S2", "END")`` counts edges at named
    positions and at all others together; and

        ablation: what an ablated edge carries: ``"resample"``, the paired corrupted run's value;
            ``"zero"``; ``"mean"`` over ``reference``, by position and template.
        alphas: ``"left"`` (0, 1/m, …; as published of ``"eap-ig"``), ``"right"`` (1/m, …, 1; of
            ``"eap-ig-activations"``) or ``"midpoint"``; 0 is the ablated value, 1 the run's own.
        threshold: of ``"information-flow"``: the share that an edge of a route must exceed (0).
        units: neurons that are nodes of their own, ``["m2.n77"]``; where a transcoder stands for the
            MLP (``with model.replaced(...)``), its features, ``["m2.f12"]``.
        freeze_norms: hold every norm's scale at the unedited run's.
        resume: of ``"exact"``: the result (or its file) of this call, interrupted. Ctrl-C returns the
            edges that are scored, with NaN elsewhere and ``finished`` False.

    Raises:
        MetricError: the metric has no gradient, or needs what the prompts lack.
        RunError: an unknown method, ``steps`` below 1, or a source that does not fit.
        SiteError: a site does not exist or is refused for this model.
        PromptError: pairs of different lengths, or both prompts predict the same token.

    Source:
        Nanda 2023; Syed et al. 2023 (arXiv:2310.10348); Kramár et al. 2024 (arXiv:2403.00745);
        Sundararajan et al. 2017 (arXiv:1703.01365). See the modules of this folder.
    """
    pairs, sites = arguments(model, prompts, rest, answers, foils, "attribute")
    if sites == "edges":
        given = {"method": method, "steps": steps, "direction": direction, "positions": positions}
        options = {name: value for name, value in given.items() if value is not None}
        return _edges(model, pairs, source, metric=metric, reference=reference, batch=batch,
                      progress=progress, **options, **of_edges)  # fmt: skip
    if of_edges:
        raise RunError(
            f"{', '.join(of_edges)}: not an option of attribute, or one of edges only: "
            'attribute(model, prompts, "edges", ...).'
        )
    how = metrics.resolve(metric)
    method, steps = _check(method or "gradient", 10 if steps is None else steps, how)
    direction = pick_direction(direction, source, pairs)
    _check_minimum(method, how, direction)
    grid = lay_out(model.anatomy, sites, positions, pairs)
    pairs = on_device(with_answers(model, pairs, how), model.device)
    giver = Giver.of(
        model, pairs, grid.cells,
        source=source, direction=direction, reference=reference, seed=seed, batch=batch,
    )  # fmt: skip
    if method == "integrated":
        giver.check_lines()
    plan = Plan(model, pairs, how, direction, grid.cells, giver, batch)
    drawn = isinstance(source, str) and source in ("resample", "noise")
    provenance = Provenance.of(
        model, pairs, seed=seed if drawn else None,
        verb="attribute", sites=sites_text(sites), metric=how.name, method=method,
        steps=steps if method == "integrated" else None, direction=direction,
        source=source_text(source), reference=None if reference is None else reference.hash,
        positions=positions if isinstance(positions, int | str | None) else list(positions),
    )  # fmt: skip
    effects, own, other = _run(plan, method, steps, progress)
    per_prompt = effects.view(*grid.shape, len(pairs))
    clean, corrupted = (other, own) if direction == "denoise" else (own, other)
    assert clean is not None  # prompts always have a clean side
    return AttributionResult(
        values=per_prompt.mean(-1),
        per_prompt=per_prompt,
        axes=grid.axes,
        clean=clean,
        corrupted=corrupted,
        metric=how.name,
        unit=how.unit,
        direction=direction,
        method=method,
        answers=names_of(model, pairs.answers),
        foils=names_of(model, pairs.foils),
        provenance=provenance,
    )


def _run(
    plan: Plan, method: Method, steps: int, progress: bool | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Effects [cell, prompt], and the baselines of the side that would be edited and the other."""
    effects: list[Tensor] = []
    own: list[Tensor] = []
    other: list[Tensor] = []
    n_parts = -(-len(plan.prompts) // plan.rows_at_once)
    passes = {"integrated": len(plan.sites), "atp*": plan.model.n_layers}.get(method, 1)
    with frozen(plan.model.hf), Bar(total=n_parts * passes, what="attributing", show=progress) as b:
        for part, score in plan.parts():
            effect, baseline = _estimate(part, method, steps, b.advance)
            effects.append(effect.cpu())
            own.append(baseline.cpu())
            other += [] if score is None else [score.cpu()]
    return torch.cat(effects, 1), torch.cat(own), torch.cat(other) if other else None


def _estimate(
    part: Part, method: Method, steps: int, advance: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    if method == "integrated":
        return by_integration(part, steps, advance)
    if method == "atp*":
        return by_dropping(part, advance)
    return by_softmax(part) if method == "atp-qk" else by_gradient(part)


def _edges(model: Model, pairs: Prompts, source: Source, **options: Any) -> EdgeScores:
    if source is not None:
        raise RunError(
            f"source={source!r} belongs to sites: for edges, say what an ablated edge carries with "
            "ablation='resample', 'zero' or 'mean'."
        )
    unknown = set(options) - set(signature(attribute_edges).parameters)
    if unknown:
        raise RunError(f"{', '.join(sorted(unknown))}: not an option of attribute for edges.")
    return attribute_edges(model, pairs, **options)


def _check(method: str, steps: int, metric: Metric) -> tuple[Method, int]:
    if method not in _METHODS:
        raise RunError(
            f'method={method!r}; expected one of {", ".join(_METHODS)}, or for "edges" one of '
            f"{', '.join(EDGE_METHODS)}."
        )
    if steps < 1:
        raise RunError(f"steps={steps}: expected at least 1; 10 is usual for method='integrated'.")
    if metric.name in _STEPS:
        raise MetricError(
            f"metric {metric.name!r} jumps as logits pass each other and is flat between: it has no "
            "gradient to attribute by. Use 'logit_diff', 'prob' or another smooth metric, or "
            "interp.patch, which takes any."
        )
    return method, steps  # type: ignore[return-value]


def _check_minimum(method: str, metric: Metric, direction: str) -> None:
    if metric.needs_reference and direction == "noise" and method != "integrated":
        raise MetricError(
            f"metric {metric.name!r} compares with the clean run, and direction='noise' edits that "
            "run: it is at its minimum there, its gradient 0, and so would be every estimate. Use "
            "direction='denoise', method='integrated', or another metric."
        )
