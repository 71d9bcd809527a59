"""Settings without a model: a graph, and a formula from kept edges to scores.

``Network`` has the semantics of a real one: a node reads what its sources write in this variant
where the edge is kept, and what they wrote in the other run where it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from interp.graph.graph import Graph
from interp.graph.names import node_of


class Formula:
    """Scores by a formula of the mask: ``formula(kept [variant, source, dest]) -> [variant]``."""

    ablation = "resample"
    direction = "noise"
    prompts = SimpleNamespace(hash="prompts", seed=0)

    def __init__(self, graph: Graph, formula: Callable[[Tensor], Tensor], metric: str = "score"):
        self.graph, self.formula = graph, formula
        self.metric = SimpleNamespace(name=metric, unit="units")
        self.model = SimpleNamespace(name="toy", weights_hash="weights")
        self.batches: list[int] = []
        self.full = self._run(graph.full[None])[0]
        self.empty = self._run(torch.zeros_like(graph.full)[None])[0]

    def scores(self, kept: Tensor, *, grad: bool = False) -> Tensor:
        self.batches.append(len(kept))
        return self._run(kept)

    def _run(self, kept: Tensor) -> Tensor:
        found = self.formula(kept.double())
        return torch.stack([found, found], -1)  # two prompts that agree


class Network(Formula):
    """Nodes of one number each, tanh between them, weights drawn from a seed.

    Args:
        share: of the edges that have a weight; the others carry nothing.
    """

    def __init__(self, graph: Graph, seed: int = 0, *, share: float = 0.2, metric: str = "l2",
                 n_prompts: int = 4, ablation: str = "resample"):  # fmt: skip
        draw = torch.Generator().manual_seed(seed)
        shape = (len(graph.sources), len(graph.dests))
        weights = torch.randn(shape, generator=draw, dtype=torch.float64)
        self.weights = weights * (torch.rand(shape, generator=draw) < share) * graph.real
        self.inputs = torch.randn(2, n_prompts, shape[0], generator=draw, dtype=torch.float64)
        self.ablation = ablation
        self.n_positions = max(1, len(graph.positions))
        self.other = torch.zeros(n_prompts, self.n_positions, shape[0], dtype=torch.float64)
        if ablation == "resample":
            self.other = self._nodes(graph, graph.full[None].double(), self.inputs[1])[1][0]
        self.clean = self._nodes(graph, graph.full[None].double(), self.inputs[0])[0]
        super().__init__(graph, lambda kept: kept, metric)

    def _run(self, kept: Tensor) -> Tensor:
        logits = self._nodes(self.graph, kept.double(), self.inputs[0])[0]
        if self.metric.name == "l2":
            return (logits - self.clean).square().sum(-1)
        return logits.sum(-1)

    def _nodes(self, graph: Graph, kept: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [variant, prompt, position] and what nodes wrote [variant, prompt, position, source]."""
        kept = kept if kept.dim() == 4 else kept[..., None]
        size = (len(kept), *self.other.shape[:2])
        wrote: list[Tensor] = []
        reads: dict[str, list[str]] = {}
        for dest in graph.dests:
            reads.setdefault(node_of(dest), []).append(dest)

        def read(dest: str) -> Tensor:
            d = graph.dests.index(dest)
            total = torch.zeros(size, dtype=torch.float64)
            for s, value in enumerate(wrote):
                if self.weights[s, d]:
                    share = kept[:, s, d][:, None, :]  # [variant, 1, position]
                    mixed = share * value + (1 - share) * self.other[None, :, :, s]
                    total = total + self.weights[s, d] * mixed
            if dest.endswith(("<k>", "<v>")):  # moved along positions
                total = total.mean(-1, keepdim=True).expand(size)
            return total

        for s, source in enumerate(graph.sources):
            if source in reads:
                value = sum(
                    (torch.tanh(read(dest)) for dest in reads[source]), start=torch.zeros(size)
                )
                wrote.append(value + 0.3)  # a bias, which makes zero ablation count
            else:
                wrote.append(inputs[None, :, None, s] * torch.ones(size, dtype=torch.float64))
        return read("logits"), torch.stack(wrote, -1)


def both(graph: Graph, one: str, two: str) -> Formula:
    """1 if both edges are kept, else 0."""
    return Formula(graph, lambda kept: _of(graph, kept, one) * _of(graph, kept, two))


def either(graph: Graph, one: str, two: str) -> Formula:
    """1 if one of the edges is kept, else 0."""
    return Formula(
        graph, lambda kept: 1 - (1 - _of(graph, kept, one)) * (1 - _of(graph, kept, two))
    )


def _of(graph: Graph, kept: Tensor, edge: str) -> Tensor:
    return (kept * graph.mask([edge])).flatten(1).sum(1)
