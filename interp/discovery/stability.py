"""Would another draw of prompts, another method or another ablation have found the same circuit?

1. Draw prompts several times; score every edge by each method under each ablation, on each draw.
2. A circuit is the n edges with the largest \\|score\\|.
3. **Prompts**: the Jaccard index of the circuits of each two draws, and how often each edge belongs.
   Beside it the same of the untrained twin (what the graph's shape and the method alone make
   stable), and of random sets of that size.
4. **Methods** and **ablations**: on the same draw, Spearman's rank correlation of \\|score\\| over all
   edges, and the Jaccard index of the circuits.

Ranks over all edges agree by much even in the twin: most edges carry next to nothing, whatever the
prompts. A finding that speaks of the behaviour is stable over prompts, and further above the twin than above
chance. Methods that agree may be wrong together; ablations need not agree, since they ask different
questions (other values of the same kind, or none at all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp import prompts as tasks
from interp.attribution.edges import EdgeScores
from interp.attribution.verb import attribute
from interp.discovery.selection import n_edges
from interp.discovery.stability_result import StabilityResult
from interp.errors import GraphError, PromptError, RunError, nearest, warn
from interp.graph.ablations import ABLATIONS
from interp.graph.setting import Setting
from interp.metrics import resolve
from interp.progress import Bar
from interp.prompts.prompts import Prompts
from interp.results import Provenance

__all__ = ["stability"]

Method = str | Callable[..., EdgeScores]
_NO_TASKS = ("build", "load", "save")


def stability(
    model: Any,
    prompts: str | Prompts | Callable[[int], Prompts],
    *,
    seeds: int | Sequence[int] = 5,
    methods: Sequence[Method] = ("eap-ig", "eap"),
    n: int | float = 0.05,
    n_prompts: int = 64,
    metric: Any = "logit_diff",
    ablations: Sequence[str] | None = None,
    positions: Iterable[str] = (),
    twin: bool = True,
    show: bool | None = None,
) -> StabilityResult:
    """Find a circuit again and again, and say how much of it stays.

    Args:
        prompts: a task of :mod:`interp.prompts` by name, drawn with each seed; a function from a seed
            to prompts; or Prompts, of which each draw takes a random half. Halves of the same prompts
            overlap by a third (Jaccard index), so their circuits are more alike than those of new
            prompts would be; prefer a task.
        seeds: how many draws, from seed 0; or the seeds.
        methods: of :func:`interp.attribute`, ``"exact"`` among them; or functions ``(model, prompts,
            *, metric, ablation) -> EdgeScores``, given ``reference`` for means, and ``positions`` if
            there are any.
        n: how many edges make a circuit, or (a float) which share of all.
        n_prompts: how many prompts a draw of a task scores.
        ablations: the first is the one that methods are compared under. None: ``"resample"``,
            ``"zero"`` and ``"mean"``, those of them that the prompts allow; what is left out is
            warned of. For ``"mean"`` as many further prompts are drawn to average over: a task
            draws twice as many and splits them, a function's prompts are halved, and the other half
            of given Prompts serves.
        positions: as for :func:`interp.attribute`: edges counted at named positions.
        twin: whether to score the untrained twin too, under the first ablation.

    Raises:
        RunError: fewer than two draws, no method, or no such number of edges.
        PromptError: no such task, or too few prompts.
        GraphError: an ablation that was asked for by name and does not fit the prompts.
    """
    draws = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if len(draws) < 2 or not methods or ablations == ():
        raise RunError(
            f"{len(draws)} draws, methods={tuple(methods)}, ablations={ablations}: expected at least "
            "two draws, a method and an ablation."
        )
    how = resolve(metric)
    drawn = {
        s: _drawn(model, prompts, s, n_prompts, "mean" in (ablations or ABLATIONS)) for s in draws
    }
    options = {"metric": how, **({"positions": where} if (where := tuple(positions)) else {})}
    kinds, notes = _possible(model, drawn.values(), ablations, options)
    other = model.random_twin(check=False) if twin else None
    total = len(draws) * len(methods) * (len(kinds) + (other is not None))
    found: list[Tensor] = []
    control: list[Tensor] = []
    graph = None
    with Bar(total=total, what="scoring edges", show=show, least=4) as bar:
        for seed in draws:
            for method in methods:
                for ablation in kinds:
                    scores = _scored(method, model, drawn[seed], ablation, options)
                    graph = scores.graph
                    found.append(_flat(scores))
                    bar.advance()
                if other is not None:
                    scores = _scored(method, other, drawn[seed], kinds[0], options)
                    control.append(_flat(scores))
                    bar.advance()
    assert graph is not None  # there is a draw, a method and an ablation
    names = tuple(m if isinstance(m, str) else getattr(m, "__name__", repr(m)) for m in methods)
    sizes = {len(measured) for measured, _ in drawn.values()}
    return StabilityResult(
        seeds=draws, methods=names, ablations=kinds,
        scores=torch.stack(found).view(len(draws), len(methods), len(kinds), -1),
        twin=torch.stack(control).view(len(draws), len(methods), -1) if control else None,
        n=n_edges(graph, n), shape=graph.shape, drawn=_described(prompts), n_prompts=min(sizes),
        metric=how.name, unit=how.unit, notes=tuple(notes),
        provenance=Provenance.of(
            model, prompts if isinstance(prompts, Prompts) else None, verb="stability",
            drawn=_described(prompts), seeds=list(draws), methods=list(names), n=n,
            n_prompts=n_prompts, metric=how.name, ablations=list(kinds),
        ),
    )  # fmt: skip


Draw = tuple[Prompts, Prompts | None]  # measured, and to average over


def _drawn(model: Any, prompts: Any, seed: int, n: int, reference: bool) -> Draw:
    """The prompts of a draw, and others to average over where some ablation needs them."""
    if isinstance(prompts, Prompts):
        return prompts.split(0.5, seed=seed)
    if callable(prompts):
        whole = prompts(seed)
    else:
        names = [name for name in tasks.__all__ if name[0].islower() and name not in _NO_TASKS]
        if prompts not in names:
            raise PromptError(
                f"no task is called {prompts!r}; nearest: {nearest(str(prompts), names)}. Or give "
                "Prompts, or a function from a seed to Prompts."
            )
        whole = getattr(tasks, prompts)(model, (1 + reference) * n, seed)
    if not isinstance(whole, Prompts):
        raise PromptError(f"the draw of seed {seed} is {whole!r}, expected Prompts.")
    return whole.split(0.5, seed=seed) if reference else (whole, None)


def _possible(
    model: Any, draws: Iterable[Draw], asked: Sequence[str] | None, options: dict[str, Any]
) -> tuple[tuple[str, ...], list[str]]:
    """The ablations to compare, and notes on those that these prompts cannot have."""
    if asked is not None:
        return tuple(asked), []
    kept, notes = [], []
    for ablation in ABLATIONS:
        try:
            for draw in draws:
                _check_ablation(model, draw, ablation, options)
        except GraphError as error:
            notes.append(f"{ablation} ablation is left out: {error}")
            warn(notes[-1])
            continue
        kept.append(ablation)
    return tuple(kept), notes


def _check_ablation(model: Any, draw: Draw, ablation: Any, options: dict[str, Any]) -> None:
    """Raise if the prompts cannot have this ablation: for means, that each has something to be.

    Raises:
        GraphError: with the reason.
    """
    setting = Setting.of(model, draw[0], ablation=ablation, **_reference(ablation, draw), **options)
    if ablation == "mean":
        for row in range(len(draw[0])):
            setting.ablated(slice(row, row + 1))


def _reference(ablation: str, draw: Draw) -> dict[str, Any]:
    return {"reference": draw[1]} if ablation == "mean" else {}


def _scored(
    method: Method, model: Any, draw: Draw, ablation: str, options: dict[str, Any]
) -> EdgeScores:
    given = {"ablation": ablation, **_reference(ablation, draw), **options}
    if not isinstance(method, str):
        return method(model, draw[0], **given)
    scores = attribute(model, draw[0], "edges", method=method, progress=False, **given)
    if not scores.finished:  # exact scores, which Ctrl-C cut short
        raise KeyboardInterrupt
    return scores


def _flat(scores: EdgeScores) -> Float[Tensor, " edge"]:
    return scores.values[scores.graph.index].double().cpu()


def _described(prompts: Any) -> str:
    if isinstance(prompts, str):
        return f"task {prompts!r}, another seed for each draw"
    if isinstance(prompts, Prompts):
        return f"a random half of the same {len(prompts)} prompts for each draw"
    return f"{getattr(prompts, '__name__', 'a function')}(seed)"
