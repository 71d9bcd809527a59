"""What the tests of drawings share: a circuit of the demo model's shape, and scores of its whole graph."""

import random

import torch

from interp.circuits.circuit import Circuit
from interp.graph import Graph

SHAPE = {"n_layers": 4, "n_heads": 6, "parallel": False, "pos_embed": False, "mlps": True}
EDGES = [
    "embed->a0.h1<q>", "embed->a0.h1<k>", "embed->a0.h1<v>", "embed->a0.h4<v>", "embed->m0",
    "a0.h1->a1.h2<k>", "a0.h1->a1.h5<k>", "a0.h4->a1.h2<v>", "m0->a1.h2<q>", "m0->a1.h5<q>",
    "a1.h2->a3.h0<q>", "a1.h2->m2", "a1.h5->m2", "m2->a3.h0<v>", "a1.h2->logits",
    "a3.h0->logits", "a3.h4->logits", "m0->a3.h4<v>", "m3->logits", "a3.h0->m3",
    "embed->a3.h0<v>",
]  # fmt: skip
ROLES = {
    "a0.h1": ("previous token",), "a1.h2": ("induction", "S-inhibition"), "a1.h5": ("induction",),
    "a3.h0": ("name mover",),
}  # fmt: skip


def circuit(edges=EDGES, *, shape=SHAPE, **fields):
    given = {
        "name": "ioi",
        "model": "demo",
        "metric": "logit_diff",
        "ablation": "resample",
        "roles": ROLES,
    }
    return Circuit(edges=frozenset(edges), shape=shape, **{**given, **fields})


def heavy(edges, seed=0):
    """Scores as they are: a few large ones, most of them negative."""
    draw = random.Random(seed)
    return {
        edge: -0.02 * draw.paretovariate(1.2) * (1 if draw.random() < 0.75 else -1)
        for edge in edges
    }


class Scores:
    """What stands in for :class:`interp.EdgeScores`: names, a tensor with NaN where there is no edge."""

    def __init__(self, graph: Graph, scores: dict[str, float]):
        self.sources, self.dests, self.positions = graph.sources, graph.dests, graph.positions
        self.values = torch.full(graph.full.shape, torch.nan)
        for edge, score in scores.items():
            self.values[graph.mask([edge])] = score
