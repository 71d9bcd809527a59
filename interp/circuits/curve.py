r"""Faithfulness as edges are added in the order of their scores: MIB's curve, CPR and CMD.

.. math:: f(k) = (m(C_k) - m(∅)) / (m(full) - m(∅)), \quad |C_k| = \lfloor k |E| \rfloor

at k = .001, .002, .005, .01, .02, .05, .1, .2, .5, 1. CPR is the trapezoid of f and CMD that of
\|1 - f\| over the nominal k. A circuit of no edges is the empty one, f = 0.

Source: Mueller et al. 2025, arXiv:2504.13151 (MIB), as in its ``evaluate_area_under_curve``: the plain
top n by \|score\| (its greedy choice and signed order are options there too).

Departures:

- Nothing is pruned and no score changed. MIB drops edges on no path from input to logits first, which
  is neutral under resample ablation and not under zero and mean ablation; hand over a selection that
  prunes (``select=``) for its numbers there.
- The denominator is refused where it is near 0. Token and position embeddings are nodes apart.
- A random ranking stands beside: a circuit that is empty up to k = .5 scores CPR .25 by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.circuits.curve_result import FaithfulnessCurve
from interp.circuits.runs import Runs, setting_of
from interp.circuits.shares import MIN_GAP, gap
from interp.errors import CircuitError
from interp.graph import Graph
from interp.results import Provenance

if TYPE_CHECKING:
    from interp.attribution.edges import EdgeScores

__all__ = ["FRACTIONS", "curve"]

#: The shares of edges at which MIB measures.
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Mask = Bool[Tensor, "source dest *position"]
Select = Callable[[Any, int], Mask | Iterable[str]]


def curve(
    scores: EdgeScores,
    where: Any,
    prompts: Any = None,
    *,
    metric: Any = None,
    ablation: str | None = None,
    reference: Any = None,
    fractions: Sequence[float | int] = FRACTIONS,
    signed: bool = False,
    select: Select | None = None,
    n_random: int = 5,
    min_gap: float = MIN_GAP,
    seed: int = 0,
    show: bool | None = None,
) -> FaithfulnessCurve:
    """Measure how faithful the circuits of the best-scored edges are.

    Args:
        scores: a score for each edge.
        where: a model, or a :class:`~interp.graph.setting.Setting`, which has prompts of its own.
        prompts: to measure on; others than the scores were computed on.
        metric, ablation: None: those of the scores. A metric of one's own must be given again.
        reference: for mean ablation: other prompts to average over.
        fractions: the k, ascending, each from 0 to 1.
        signed: order edges by how much they help, instead of by the size of their score.
        select: ``(scores, n) -> edges``, as a mask or names, in place of the plain top n.
        n_random: random rankings (the scores shuffled over edges), selected in the same way.
        min_gap: the least gap to divide by, in the metric's unit.
        seed: of the random rankings.

    Raises:
        GapError: m(full) and m(∅) are too close.
        CircuitError: fractions that do not ascend from 0 to 1, scores of another graph, or a
            selection of more edges than were asked for.
    """
    shares = tuple(float(k) for k in fractions)
    if (
        len(shares) < 2
        or not shares[0] >= 0
        or shares[-1] > 1
        or any(a >= b for a, b in pairwise(shares))
    ):
        raise CircuitError(f"fractions={shares}; expected at least two, ascending, from 0 to 1.")
    setting = setting_of(
        where, prompts, metric=metric or scores.metric, ablation=ablation or scores.ablation,
        reference=reference, graph=scores.graph,
    )  # fmt: skip
    runs = Runs(setting, what="faithfulness curve", show=show)
    graph = runs.graph
    if scores.graph.shape != graph.shape:
        raise CircuitError(f"scores of {scores.graph.shape} on a graph of {graph.shape}.")
    gap(runs.full, runs.empty, min_gap=min_gap)
    numbers = [int(k * len(graph.edges)) for k in shares]
    masks = _masks(graph, scores, numbers, select, signed=signed)
    values = runs(masks)
    drawn = [
        runs(_masks(graph, one, numbers, select, signed=signed)).double().mean(-1)
        for one in _shuffled(scores, n_random, seed)
    ]
    name = getattr(select, "__name__", type(select).__name__) if select else None
    selection = name or ("top signed" if signed else "top |score|")
    return FaithfulnessCurve(
        fractions=shares, counts=tuple(int(mask.sum()) for mask in masks), n_edges=len(graph.edges),
        per_prompt=values, full=runs.full, empty=runs.empty,
        random=torch.stack(drawn) if drawn else values.new_empty(0, len(shares)),
        selection=selection, method=scores.method, metric=setting.metric.name,
        unit=setting.metric.unit, ablation=setting.ablation, min_gap=min_gap,
        provenance=Provenance.of(
            setting.model, setting.prompts, seed=seed, verb="circuits.curve", method=scores.method,
            scored_on=scores.provenance.prompts_hash, selection=selection, signed=signed,
            metric=setting.metric.name, ablation=setting.ablation,
            reference=getattr(reference, "hash", None), n_random=n_random,
        ),
    )  # fmt: skip


def _masks(
    graph: Graph, scores: Any, numbers: Sequence[int], select: Select | None, *, signed: bool
) -> list[Mask]:
    """The mask of each number of edges."""
    if select is None:
        ranked = scores.ranked(signed=signed)
        return [graph.mask(ranked[:n]) for n in numbers]
    found = [select(scores, n) for n in numbers]
    masks = [one & graph.full if isinstance(one, Tensor) else graph.mask(one) for one in found]
    for n, mask in zip(numbers, masks, strict=True):
        if int(mask.sum()) > n:
            raise CircuitError(f"select took {int(mask.sum())} edges where {n} were asked for.")
    return masks


def _shuffled(scores: EdgeScores, n: int, seed: int) -> Iterable[EdgeScores]:
    """The same scores, each at another edge."""
    generator = torch.Generator().manual_seed(seed)
    index = scores.graph.index
    flat = scores.values[index]
    for _ in range(n):
        values = scores.values.clone()
        values[index] = flat[torch.randperm(len(flat), generator=generator)]
        yield replace(scores, values=values)
