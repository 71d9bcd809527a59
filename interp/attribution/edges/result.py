"""A score for every edge of a graph, with both baselines and where they came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import GraphError, ResultError, nearest
from interp.graph.graph import Graph
from interp.graph.names import split_edge
from interp.intervals import bootstrap
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["EdgeScores"]

#: Methods whose scores have no sign.
_UNSIGNED = ("atp*", "information-flow", "edge-pruning", "subnetwork-probing")
#: Methods whose values are told in words of their own.
_WHAT = {
    "information-flow": "share of what the destination reads",
    "edge-pruning": "trained gate of the edge, 0 to 1",
    "subnetwork-probing": "trained gate of the source, 0 to 1",
}


@dataclass(frozen=True, eq=False, repr=False)
class EdgeScores(Stored):
    """What each edge does to the metric: the metric with the edge ablated, less the metric without.

    **Negative: the edge helps** (ablating it lowers the metric). 0: it does nothing. Positive: it
    hurts. (With ``direction="denoise"`` "ablating" puts clean values into a corrupted run, so there an
    edge that helps is positive.) In the metric's unit; not normalised. Methods without a sign (:attr:`signed`) give sizes:
    ``"atp*"`` in the metric's unit, ``"information-flow"`` shares of what a destination reads.

    Attributes:
        values: the mean over prompts; NaN where there is no edge, or no score (:attr:`finished`).
        per_prompt: the same for each prompt, along a first axis; None where it was not kept.
        sources, dests: names of the nodes that write and of what reads (see :class:`Graph`).
        positions: names of the groups of positions; () where an edge is one at all positions.
        metric, unit: what was measured.
        method: how: ``"exact"``, ``"eap"``, ``"eap-ig"``, ``"eap-ig-activations"``, ``"atp*"``
            or ``"information-flow"``; the circuits of ``interp.discover`` also have ``"acdc"`` (the
            change as an edge was removed; NaN: not tried) and trained gates.
        ablation: what an ablated edge carries: ``"resample"``, ``"mean"`` or ``"zero"``.
        direction: ``"noise"``: edges are ablated in the clean run. ``"denoise"``: in the corrupted
            run, where "ablated" edges carry what they carry in the clean one.
        full, empty: the metric of each prompt with nothing ablated, and with every edge ablated.
        shape: what makes the graph again (:attr:`Graph.shape`).
        provenance: model, prompts, seed, versions and the call.
    """

    values: Float[Tensor, "source dest *position"]
    per_prompt: Float[Tensor, "prompt source dest *position"] | None
    sources: tuple[str, ...]
    dests: tuple[str, ...]
    positions: tuple[str, ...]
    metric: str
    unit: str
    method: str
    ablation: str
    direction: str
    full: Float[Tensor, " prompt"]
    empty: Float[Tensor, " prompt"]
    shape: dict[str, Any]
    provenance: Provenance

    def __repr__(self) -> str:
        at = f" at {len(self.positions)} groups of positions" if self.positions else ""
        what = f"{self.metric} in {self.unit}" if self.unit else self.metric
        at += "" if self.finished else f", {int((~self._flat.isnan()).sum())} of them scored"
        return (
            f"EdgeScores({len(self.graph.edges)} edges{at}; {what}: full {self.full.mean():.3g}, "
            f"empty {self.empty.mean():.3g}; {self.method}, {self.ablation} ablation, "
            f"{len(self.full)} prompts)"
        )

    @property
    def graph(self) -> Graph:
        """The graph whose edges these are."""
        return _graph(json.dumps(self.shape, sort_keys=True))

    @property
    def finished(self) -> bool:
        """False of exact scores that Ctrl-C interrupted: some edges have none (NaN)."""
        return self.method != "exact" or not bool(self._flat.isnan().any())

    @property
    def signed(self) -> bool:
        """Whether scores have a sign; if not, they are sizes, and 0 is least."""
        return self.method not in _UNSIGNED

    @property
    def what(self) -> str:
        """What the values are, with their unit."""
        if self.method in _WHAT:
            return _WHAT[self.method]
        unit = f"{self.metric} ({self.unit})" if self.unit else self.metric
        if not self.signed:
            return f"estimated size of change of {unit}"
        if self.method == "acdc":
            return f"change of {unit} as the edge was removed from the circuit"
        return f"{'' if self.method == 'exact' else 'estimated '}change of {unit} if ablated"

    # -- edges ---------------------------------------------------------------------------

    @property
    def _flat(self) -> Float[Tensor, " edge"]:
        """The scores in the order of the graph's edges."""
        return self.values[self.graph.index]

    def of(self, edge: str) -> float:
        """The score of one edge.

        Raises:
            GraphError: there is no such edge; the nearest are named.
        """
        return float(self._flat[self.graph.number(edge)])

    def ranked(self, *, signed: bool = False) -> tuple[str, ...]:
        """Every edge, the most important first; ties in the order of the graph.

        By default by size, whatever the sign. ``signed``: from what helps most to what hurts most,
        which is from the most negative to the most positive (the other way round in
        ``direction="denoise"``). Edges without a score (NaN) come last.

        Raises:
            ResultError: ``signed`` of a method whose scores have no sign.
        """
        if signed and not self.signed:
            raise ResultError(
                f"scores of method={self.method!r} have no sign, so edges that help cannot be told "
                "from edges that hurt: leave signed out, or use 'exact', 'eap' or 'eap-ig'."
            )
        flat = self._flat.double()
        helps = flat if self.direction == "noise" else -flat
        keys = helps if signed else -flat.abs()
        order = keys.nan_to_num(nan=torch.inf).argsort(stable=True).tolist()
        edges = self.graph.edges
        return tuple(edges[i] for i in order)

    def top(self, n: int = 10, *, signed: bool = False) -> DataFrame:
        """The first ``n`` of :meth:`ranked`, a row each, as :meth:`to_frame` has them."""
        rows = [self.graph.number(edge) for edge in self.ranked(signed=signed)[:n]]
        return self.to_frame().iloc[rows].reset_index(drop=True)

    def nodes(self) -> dict[str, float]:
        """A score for each node that writes: the sum of its outgoing edges' scores (NaN counts as 0).

        For gradient methods at one point (``"eap"``, ``"eap-ig"``) that is the node's own
        attribution: what it writes is read by the edges and nothing else.
        """
        sums = self.values.double().nan_to_num(0.0).flatten(1).sum(1)
        return dict(zip(self.sources, sums.tolist(), strict=True))

    def at(self, position: str) -> Float[Tensor, "source dest"]:
        """The scores of the edges at one group of positions.

        Raises:
            GraphError: there is no such group.
        """
        position = str(position)
        if position not in self.positions:
            raise GraphError(
                f"there is no group of positions {position!r} in these scores; "
                f"nearest: {nearest(position, self.positions) if self.positions else 'none'}."
            )
        return self.values[..., self.positions.index(position)]

    # -- looking -------------------------------------------------------------------------

    def to_frame(self) -> DataFrame:
        """One row for each edge, in the graph's order.

        ``edge``, ``source``, ``dest``, ``position`` (where there are positions), ``score``, and,
        where scores of each prompt were kept, ``low`` and ``high`` (95% bootstrap over prompts).
        """
        import pandas as pd

        parts = [split_edge(edge) for edge in self.graph.edges]
        columns: dict[str, Any] = {
            "edge": list(self.graph.edges),
            "source": [source for source, _, _ in parts],
            "dest": [dest for _, dest, _ in parts],
        }
        if self.positions:
            columns["position"] = [position for _, _, position in parts]
        columns["score"] = self._flat.tolist()
        if self.per_prompt is not None:
            interval = bootstrap(self.per_prompt.movedim(0, -1)[self.graph.index])
            columns["low"], columns["high"] = interval.low.tolist(), interval.high.tolist()
        return pd.DataFrame(columns)

    def plot(
        self, *, position: str | None = None, limit: float | None = None, title: str | None = None
    ) -> Figure:
        """A heat map of sources × destinations, and beside it the score of each source.

        Colours are centred at zero where scores have a sign; grey is no edge, or no score.

        Args:
            position: one group of positions; None: the sum over all of them.
            limit: the score of the strongest colour; None: the largest.
        """
        from interp.attribution.edges.figure import edge_figure

        if position is not None:
            values = self.at(position)
        elif self.positions:
            values = torch.where(self.graph.real, self.values.nan_to_num(0.0).sum(-1), torch.nan)
        else:
            values = self.values
        at = f" at {position}" if position else ""
        missing = bool(self._flat.isnan().any())
        return edge_figure(
            values, self.sources, self.dests, unit=self.what, signed=self.signed, limit=limit,
            title=title or f"Edges of {self.provenance.model}{at}, {self.method}",
            empty="no edge, or none that has a score" if missing else "no edge",
        )  # fmt: skip


@lru_cache(maxsize=8)
def _graph(shape: str) -> Graph:
    """Graphs are made once: their edges are many, and a result's attributes are what is saved."""
    return Graph.shaped(**json.loads(shape))
