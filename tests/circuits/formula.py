"""A setting whose scores are a formula over kept edges, so that every number can be had by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import torch

import interp
from interp.attribution.edges import EdgeScores
from interp.circuits.circuit import Circuit
from interp.graph import Graph
from interp.metrics import METRICS
from interp.results import Provenance

GRAPH = Graph(n_layers=2, n_heads=2, pos_embed=False)
#: Two ways that do the same: either head of layer 0, read by m1.
LEFT = ("embed->a0.h0<v>", "a0.h0->m1")
RIGHT = ("embed->a0.h1<v>", "a0.h1->m1")
LAST = "m1->logits"


@dataclass
class Formula:
    """``score(kept, prompt) = formula(has) * weight[prompt]``, ``has(edge)`` being 0 or 1.

    Counts its runs, and keeps what it was asked for.
    """

    formula: object
    weights: tuple[float, ...] = (1.0, 1.0)
    graph: Graph = GRAPH
    ablation: str = "resample"
    runs: int = 0
    prompts: object = None
    model: object = field(
        default_factory=lambda: SimpleNamespace(name="toy", weights_hash="a" * 64)
    )

    def __post_init__(self):
        self.metric = METRICS["logit_diff"]
        n = len(self.weights)
        ids = torch.arange(3 * n).reshape(n, 3)
        self.prompts = self.prompts or interp.Prompts(interp.TokenBatch.of(ids), seed=0)
        ends = torch.stack([self.graph.full, self.graph.full & False])
        self.full, self.empty = self.scores(ends)
        self.runs = 0

    def scores(self, kept):
        self.runs += len(kept)
        weights = torch.tensor(self.weights)
        values = []
        for mask in kept:
            edges = set(self.graph.names(mask))
            values.append(float(self.formula(lambda *e, edges=edges: float(edges >= set(e)))))
        return torch.tensor(values)[:, None] * weights


def either(has):
    """LEFT or RIGHT, read by the logits: 4 with one of them, or both; 0 with neither."""
    return 4 * has(LAST) * max(has(*LEFT), has(*RIGHT))


def circuit(*edges, name="toy circuit", **fields):
    fields = {"model": "toy", "metric": "logit_diff", "ablation": "resample", **fields}
    return Circuit(name, frozenset(edges), GRAPH.shape, **fields)


def scored(
    graph, scores, *, setting=None, method="exact", metric="logit_diff", ablation="resample"
):
    """EdgeScores: of a mapping of edges, the others 0; or of a whole matrix."""
    if not isinstance(scores, torch.Tensor):
        values = torch.zeros(graph.full.shape, dtype=torch.float64)
        for edge, score in scores.items():
            values[graph.mask([edge])] = score
        scores = values
    full = torch.zeros(2) if setting is None else setting.full
    empty = full if setting is None else setting.empty
    provenance = Provenance({}, "toy", "a" * 64, "0", 0, {})
    return EdgeScores(
        scores.masked_fill(~graph.full, torch.nan), None, graph.sources, graph.dests,
        graph.positions, metric, "logits", method, ablation, "noise", full, empty, graph.shape,
        provenance,
    )  # fmt: skip
