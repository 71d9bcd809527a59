"""From prompts to a circuit of edges: scored, cut off, and measured on prompts that it never saw.

1. **Score** edges exactly on the discovery prompts: the metric with that edge alone ablated, less the
   metric; edges between ends that do nothing are left out (:mod:`interp.pipelines.screening`).
2. **Cut off**: of the edges in the order of how much they help, the shortest list which keeps ``faithful``
   of the metric *on the same prompts*; edges that then lead nowhere are left out (under resample
   ablation that changes nothing). Edges that work against the behaviour (negative name movers) come last
   in that order, and are in no such circuit; ``signed=False`` ranks by size, and takes both.
3. **Again** on other draws of the prompts, with as many edges: how much of the circuit is the model's, and how
   much the sample's, is the Jaccard index between them.

Sources: Syed et al. 2023, arXiv:2310.10348, and Hanna et al. 2024, arXiv:2403.17806 (circuits as the top of a
list of scores). Departures: exact scores, not estimates; the size is found, not given.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from interp.attribution.edges import EdgeScores
from interp.attribution.verb import attribute
from interp.circuits.acquaintance import described
from interp.circuits.circuit import Circuit
from interp.discovery.selection import top_n
from interp.graph import Setting
from interp.models.model import Model
from interp.pipelines.screening import screened_scores
from interp.prompts.prompts import Prompts
from interp.results import Provenance

__all__ = ["agreement", "circuit_of", "edge_scores", "shortest"]

#: The largest share of a model's edges that is tried.
_MOST: Final = 0.5
_STEPS: Final = 40


def edge_scores(
    model: Model, prompts: Prompts, metric: str, *, method: str = "screened",
    progress: bool | None = None,
) -> EdgeScores:  # fmt: skip
    """The scores of edges on these prompts, under resample ablation.

    Args:
        method: ``"screened"``, or one of ``interp.attribute(model, prompts, "edges")``.
    """
    if method == "screened":
        setting = Setting.of(model, prompts, metric=metric, ablation="resample")
        return screened_scores(setting, progress=progress)
    how: Any = method
    scores = attribute(model, prompts, "edges", method=how, metric=metric, progress=progress)
    if not scores.finished:  # exact scores, which Ctrl-C cut short
        raise KeyboardInterrupt
    return scores


def shortest(
    model: Model, prompts: Prompts, scores: EdgeScores, *, faithful: float, signed: bool = True
) -> tuple[int, float]:
    """The least number of first edges that keeps ``faithful`` of the metric, and what it keeps.

    Numbers go up by about a tenth each time, to half of all edges; where none suffices, the one that
    keeps most is taken.
    """
    setting = Setting.of(model, prompts, metric=scores.metric, ablation="resample")
    n, signed = len(scores.graph.edges), signed and scores.signed
    most = min(_MOST * n, int(scores.values.isfinite().sum()))
    least = min(3.0, most)
    sizes = sorted({round(least * (most / least) ** (i / _STEPS)) for i in range(_STEPS + 1)})
    masks = torch.stack([top_n(scores, size, signed=signed) for size in sizes])
    kept = setting.scores(masks).double().mean(-1)
    base, full = setting.empty.double().mean(), setting.full.double().mean()
    shares = ((kept - base) / (full - base)).tolist()
    for size, share in zip(sizes, shares, strict=True):
        if share >= faithful:
            return size, share
    best = max(range(len(sizes)), key=shares.__getitem__)
    return sizes[best], shares[best]


def circuit_of(
    model: Model, prompts: Prompts, scores: EdgeScores, n: int, *, signed: bool, name: str,
    call: Mapping[str, Any],
) -> Circuit:  # fmt: skip
    """The circuit of the ``n`` first edges, without those that lead nowhere.

    Args:
        name: the task's, by which its prompts are drawn again, and the circuit's.
        call: the pipeline and its options, for the record.
    """
    graph, signed = scores.graph, signed and scores.signed
    edges = graph.names(top_n(scores, n, signed=signed, connected="prune"))
    return Circuit(
        name=name, edges=frozenset(edges), shape=graph.shape, model=model.name,
        weights_hash=model.weights_hash, metric=scores.metric, ablation=scores.ablation,
        prompts={**described(prompts), "task": name},
        method={**call, "scores": scores.method, "first": n},
        source=f"interp.pipelines.{call['verb']}",
        provenance=Provenance.of(model, prompts, **{**call, "scores": scores.method}),
        scores=replace(scores, per_prompt=None),
    )  # fmt: skip


def agreement(circuits: Sequence[Circuit]) -> tuple[float, ...]:
    """The Jaccard index of each pair: edges in both over edges in either; 0 if there are none."""
    pairs = itertools.combinations(circuits, 2)
    return tuple(a.jaccard(b) if a.edges | b.edges else 0.0 for a, b in pairs)
