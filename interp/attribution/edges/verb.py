"""``interp.attribute(model, prompts, "edges")``: a score for every edge of a model's graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.attribution.edges.activations import by_activations, groups_of
from interp.attribution.edges.atp import by_softmax
from interp.attribution.edges.eap import ALPHAS, Alphas, Found, by_gradient, by_interpolation
from interp.attribution.edges.exact import by_ablation
from interp.attribution.edges.information_flow import by_flow
from interp.attribution.edges.result import EdgeScores
from interp.attribution.edges.trace import scored
from interp.errors import MetricError, ResultError, RunError
from interp.graph import Setting
from interp.graph.ablations import Ablation
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.resume import same_sweep
from interp.progress import Bar
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.token_batch import TokenBatch

__all__ = ["EDGE_METHODS", "EdgeMethod", "attribute_edges"]

EdgeMethod = Literal[
    "exact", "eap", "eap-ig", "eap-ig-activations", "atp-qk", "atp*", "information-flow"
]  # fmt: skip
EDGE_METHODS: Final = (
    "exact", "eap", "eap-ig", "eap-ig-activations", "atp-qk", "atp*", "information-flow"
)  # fmt: skip
#: The sum over α that each method's published code takes.
_PUBLISHED: Final[dict[str, Alphas]] = {"eap-ig": "left", "eap-ig-activations": "right"}
#: Metrics that are steps of the logits: their gradient is 0 wherever it exists.
_STEPS: Final = ("rank", "accuracy", "diff_accuracy")
#: Numbers of scores for single prompts that are kept.
_KEPT: Final = 2**24


def attribute_edges(
    model: Model,
    prompts: Prompts,
    *,
    metric: str | Metric | Callable[..., Tensor] = "logit_diff",
    method: EdgeMethod = "eap-ig",
    steps: int = 5,
    alphas: Alphas | None = None,
    threshold: float = 0.0,
    ablation: Ablation | None = None,
    reference: Prompts | None = None,
    direction: Literal["noise", "denoise"] = "noise",
    positions: Iterable[str] = (),
    units: Iterable[str] = (),
    freeze_norms: bool = False,
    batch: int | Literal["auto"] = "auto",
    resume: EdgeScores | str | Path | None = None,
    progress: bool | None = None,
) -> EdgeScores:
    """Score every edge; :func:`interp.attribute` says what the arguments mean.

    Raises:
        RunError: an unknown method, or a value that an option cannot have.
        ResultError: ``resume`` is the result of another call.
        MetricError: the metric has no gradient, and the method needs one.
        GraphError: the model has no graph, or the ablation does not fit the prompts.
    """
    alphas = alphas or _PUBLISHED.get(method, "left")
    _check(method, steps, alphas, threshold)
    if resume is not None and method != "exact":
        raise RunError(f"resume= belongs to method='exact', which takes long, not to {method!r}.")
    if ablation is None:  # information flow ablates nothing, and needs no pairs
        ablation = "zero" if method == "information-flow" else "resample"
    setting = Setting.of(
        model, prompts, metric=metric, ablation=ablation, reference=reference, direction=direction,
        units=units, positions=positions, freeze_norms=freeze_norms, batch=batch,
    )  # fmt: skip
    _check_gradient(method, setting)
    graph, how = setting.graph, setting.metric
    provenance = Provenance.of(
        model, setting.prompts,
        verb="attribute", sites="edges", metric=how.name, method=method, ablation=ablation,
        direction=direction, steps=steps if method in _PUBLISHED else None,
        alphas=alphas if method in _PUBLISHED else None, freeze_norms=freeze_norms,
        threshold=threshold if method == "information-flow" else None,
        reference=None if reference is None else reference.hash,
    )  # fmt: skip
    if method == "exact":
        known = None if resume is None else _known(resume, provenance, setting)
        per_prompt, full, empty = _ablated(setting, known, progress)
    else:
        per_prompt, full, empty = _run(setting, method, steps, alphas, threshold, progress)
    values = per_prompt.mean(0)
    values[~graph.full] = torch.nan
    per_prompt[:, ~graph.full] = torch.nan
    kept = len(per_prompt) == len(full) and per_prompt.numel() <= _KEPT
    return EdgeScores(
        values=values,
        per_prompt=per_prompt if kept else None,
        sources=graph.sources,
        dests=graph.dests,
        positions=graph.positions,
        metric=how.name,
        unit=how.unit,
        method=method,
        ablation=ablation,
        direction=direction,
        full=full,
        empty=_empty(setting, method) if empty is None else empty,
        shape=graph.shape,
        provenance=provenance,
    )


def _ablated(
    setting: Setting, known: Float[Tensor, "edge prompt"] | None, progress: bool | None
) -> Found:
    n = len(setting.graph.edges)
    what = f"ablating {n} edges, one variant of the run each"
    with Bar(total=n, what=what, show=progress) as bar:
        return by_ablation(setting, bar.advance, known), setting.full, None


def _known(
    resume: EdgeScores | str | Path, provenance: Provenance, setting: Setting
) -> Float[Tensor, "edge prompt"]:
    """What an interrupted run has found.

    Raises:
        ResultError: it is the result of another call.
    """
    old = resume if isinstance(resume, EdgeScores) else EdgeScores.load(resume)
    same_sweep(provenance, old.provenance, (), (), {"unedited": (setting.full, old.full)})
    if old.shape != setting.graph.shape:
        raise ResultError(
            f"resume= is another call: its graph is {old.shape}, this one's {setting.graph.shape}. Give "
            "the result of the same call, or leave resume out."
        )
    if old.per_prompt is not None:
        return old.per_prompt.movedim(0, -1)[setting.graph.index]
    return old.values[setting.graph.index][:, None].expand(
        -1, len(old.full)
    )  # means have the same mean


def _run(
    setting: Setting, method: EdgeMethod, steps: int, alphas: Alphas, threshold: float,
    progress: bool | None,
) -> Found:  # fmt: skip
    """Scores of every prompt's edges (their mean alone where they are too many to be kept); of the
    unedited run; with every edge ablated, if known."""
    n = len(setting.prompts)
    alone = n * setting.graph.full.numel() <= _KEPT
    groups, layers = len(tuple(groups_of(setting.graph))), setting.graph.n_layers
    passes = {
        "eap-ig": steps,
        "eap-ig-activations": steps * groups,
        "atp-qk": layers,
        "atp*": layers,
    }.get(method, 1)
    found: list[tuple[Tensor | None, ...]] = []
    with Bar(total=len(setting.rows) * passes, what="attributing edges", show=progress) as bar:
        for rows in setting.rows:
            tokens: TokenBatch = setting.tokens.rows(rows)
            own: tuple[Tensor | None, ...]
            if method == "eap-ig":
                own = by_interpolation(setting, rows, tokens, steps, alphas, bar.advance)
            elif method == "eap-ig-activations":
                own = by_activations(setting, rows, tokens, steps, alphas, bar.advance)
            elif method in ("atp-qk", "atp*"):
                own = by_softmax(setting, rows, tokens, bar.advance, drop=method == "atp*")
            else:
                own = (by_gradient(setting, rows, tokens) if method == "eap"
                       else by_flow(setting, rows, tokens, threshold))  # fmt: skip
                bar.advance(1)
            if not alone:
                assert own[0] is not None
                own = (own[0].sum(0, keepdim=True) / n, *own[1:])
            found.append(own)
    edges, full, *empty = zip(*found, strict=True)
    known = empty and empty[0][0] is not None
    return (
        torch.cat(edges).cpu() if alone else torch.stack(edges).sum(0).cpu(),
        torch.cat(full).cpu(),
        torch.cat(empty[0]).cpu() if known else None,
    )


def _empty(setting: Setting, method: EdgeMethod) -> Float[Tensor, " prompt"]:
    """Scores with every edge ablated: with the paired run's values, that run's own scores."""
    if method == "exact":
        return setting.empty
    if setting.ablation != "resample":
        return torch.cat([setting.only(rows).empty for rows in setting.rows])
    prompts = setting.prompts
    other = prompts.corrupted if setting.direction == "noise" else prompts.clean
    assert other is not None  # there is a paired run
    kind: Any = "last" if setting.metric.positions == "answer" else "all"
    logits = setting.model.run(other, logits=kind).logits
    return scored(setting, slice(None), logits).detach().cpu()


def _check(method: str, steps: int, alphas: str, threshold: float) -> None:
    if method not in EDGE_METHODS:
        raise RunError(f"method={method!r}; for edges, expected one of {', '.join(EDGE_METHODS)}.")
    if not isinstance(steps, int) or steps < 1:
        raise RunError(f"steps={steps}: expected at least 1; 5 is usual for method='eap-ig'.")
    if alphas not in ALPHAS:
        raise RunError(f"alphas={alphas!r}; expected one of {', '.join(ALPHAS)}.")
    if threshold and method != "information-flow":
        raise RunError(f"threshold= belongs to method='information-flow', not to {method!r}.")
    if not 0 <= threshold < 1:
        raise RunError(
            f"threshold={threshold:g}: expected the share of what a destination reads that an edge "
            "must exceed, from 0 to below 1; 0 drops no edge."
        )


def _check_gradient(method: str, setting: Setting) -> None:
    """Refuse metrics whose gradient is 0 for reasons that have nothing to do with the model."""
    metric = setting.metric
    if method in ("exact", "information-flow"):
        return
    if torch.is_inference_mode_enabled():
        raise RunError(
            f"method={method!r} needs a gradient, and torch.inference_mode() allows none: leave that "
            "block, or use method='exact'."
        )
    if metric.name in _STEPS:
        raise MetricError(
            f"metric {metric.name!r} jumps as logits pass each other and is flat between: it has no "
            "gradient. Use 'logit_diff', 'prob' or another smooth metric, or method='exact'."
        )
    if (
        metric.needs_reference
        and method in ("eap", "atp-qk", "atp*")
        and setting.direction == "noise"
    ):
        raise MetricError(
            f"metric {metric.name!r} compares with the clean run and is at its minimum there: its "
            "gradient is 0, and so would be every estimate. Use method='eap-ig' or 'exact', or "
            "another metric."
        )
