"""What the training of gates came to: the gates, the circuit that they cut out, and the curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.discovery.connection import live
from interp.discovery.gates import at_rest
from interp.errors import ResultError
from interp.graph.graph import Graph
from interp.graph.names import node_of
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["COLUMNS", "Cut", "MaskRecord", "expand"]

Cut = Literal["rank", "threshold"]
#: What is recorded of each step.
COLUMNS: Final = ("distance", "open", "target")


def expand(
    graph: Graph, method: str, gates: Float[Tensor, "*variant gate"]
) -> Float[Tensor, "*variant source dest *position"]:
    """Gates where they stand in a mask: of each edge, or of all edges from a node."""
    lead = gates.shape[:-1]
    if method == "edge-pruning":
        kept = gates.new_zeros(*lead, *graph.full.shape)
        return kept.index_put(_behind(lead, graph.index), gates)
    return gates.view(*gates.shape, *(1,) * (graph.full.dim() - 1)) * graph.full


def _behind(lead: torch.Size, index: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """An index of the last axes, for every place along the first."""
    n = len(lead)
    first = [torch.arange(size).view(-1, *(1,) * (n - i)) for i, size in enumerate(lead)]
    return (*first, *index)


@dataclass(frozen=True, eq=False, repr=False)
class MaskRecord(Stored):
    """Trained gates, whole or interrupted.

    Attributes:
        method: ``"edge-pruning"`` (a gate for each of the graph's edges, in their order) or
            ``"subnetwork-probing"`` (for each of its sources).
        n: how many edges were asked for; None if any number would do.
        cut: how the circuit is taken from the gates.
        steps: that were asked for.
        log_alpha: the gates' parameters; above 0, a gate rests above one half.
        lagrange, moments: the rest of the training's state.
        values: ``distance`` (0 is the full model, 1 the empty circuit), ``open`` (expected share
            of open gates) and ``target`` of each step that was done.
        full, empty: the metric with every edge and with none, for each prompt.
        shape: of the graph.
    """

    method: str
    n: int | None
    cut: str
    steps: int
    log_alpha: Float[Tensor, " gate"]
    lagrange: Float[Tensor, "2"]
    moments: Float[Tensor, "2 parameter"]
    values: Float[Tensor, "step column"]
    full: Float[Tensor, " prompt"]
    empty: Float[Tensor, " prompt"]
    metric: str
    unit: str
    ablation: str
    shape: Mapping[str, Any]
    provenance: Provenance

    def __repr__(self) -> str:
        last = f", distance {float(self['distance'][-1]):.3g}" if self.step else ""
        return (
            f"MaskRecord({self.method}: {self.step} of {self.steps} steps{last}; "
            f"{int(self.mask.sum())} of {len(self.graph.edges)} edges; {self.metric}, "
            f"{self.ablation} ablation)"
        )

    def __getitem__(self, column: str) -> Float[Tensor, " step"]:
        """One of the curves: ``record["distance"]``.

        Raises:
            ResultError: there is no such curve.
        """
        if column not in COLUMNS:
            raise ResultError(f"no curve is called {column!r}; there are {', '.join(COLUMNS)}.")
        return self.values[:, COLUMNS.index(column)]

    @property
    def step(self) -> int:
        """How many steps were done."""
        return len(self.values)

    @property
    def finished(self) -> bool:
        """Whether all were."""
        return self.step == self.steps

    @property
    def gated(self) -> str:
        """What has gates: edges or nodes."""
        return "edges" if self.method == "edge-pruning" else "nodes"

    @property
    def graph(self) -> Graph:
        """The graph whose edges were gated."""
        return Graph.shaped(**self.shape)

    @property
    def gates(self) -> Float[Tensor, "source dest *position"]:
        """The gate of each edge without noise, 0 to 1; NaN where there is no edge."""
        graph = self.graph
        shown = expand(graph, self.method, at_rest(self.log_alpha))
        return torch.where(graph.full, shown, torch.nan)

    @property
    def mask(self) -> Bool[Tensor, "source dest *position"]:
        """The circuit that the gates cut out."""
        graph = self.graph
        if self.method != "edge-pruning":
            return _among(graph, self.log_alpha, self.n)
        if self.cut == "threshold":
            return expand(graph, self.method, (self.log_alpha > 0).double()) > 0
        best = self.log_alpha.argsort(descending=True, stable=True)[: self.n]
        chosen = torch.zeros_like(self.log_alpha).index_fill(0, best, 1.0)
        return expand(graph, self.method, chosen) > 0

    def to_frame(self) -> DataFrame:
        """One row for each step: ``step``, ``distance``, ``open``, ``target``."""
        import pandas as pd

        frame = pd.DataFrame(self.values.numpy(), columns=list(COLUMNS))
        frame.insert(0, "step", range(1, self.step + 1))
        return frame

    def plot(self, *, title: str | None = None) -> Figure:
        """The distance from the full model and the share of open gates, along the steps."""
        from interp.discovery.curves import training

        return training(self, title=title or f"{self.method}, {self.ablation} ablation")


def _among(graph: Graph, log_alpha: Tensor, n: int | None) -> Bool[Tensor, "source dest *position"]:
    """The edges among open nodes, and to the logits, that reach the logits.

    With a number of edges: the best nodes, each taken if there are no more edges than that.
    """

    def edges(open_: Tensor) -> Tensor:
        names = {name for name, one in zip(graph.sources, open_.tolist(), strict=True) if one}
        read = torch.tensor([node_of(dest) in names or dest == "logits" for dest in graph.dests])
        own = graph.full & open_.view(-1, *(1,) * (graph.full.dim() - 1))
        return live(graph, own & (read if own.dim() == 2 else read[:, None]))

    if n is None:
        return edges(log_alpha > 0)
    chosen = torch.zeros(len(log_alpha), dtype=torch.bool)
    for best in log_alpha.argsort(descending=True, stable=True).tolist():
        chosen[best] = True
        if int(edges(chosen).sum()) > n:
            chosen[best] = False
            break
    return edges(chosen)
