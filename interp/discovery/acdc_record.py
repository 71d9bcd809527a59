"""What ACDC tried, in its order: the change of each removal, and which edges stayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.graph.graph import Graph
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["AcdcRecord"]


@dataclass(frozen=True, eq=False, repr=False)
class AcdcRecord(Stored):
    """The course of one search, whole or interrupted.

    Attributes:
        edges: every edge, in the order in which they are tried.
        change: metric without the edge less metric of the circuit as it stood, mean over prompts;
            0 where it went without a run, NaN where it was not tried.
        along: the metric of the circuit after each decision.
        kept: which edges are in the circuit; those not tried are.
        run: which were decided by a run; the others that are done went because nothing reads them.
        done: which were tried.
        full, empty: the metric with every edge and with none, for each prompt.
        tau: the smallest change that keeps an edge, in ``unit``.
        signed: whether only changes for the worse count.
        rounds: batches that were run.
        runs: variants in them, those included that were thrown away.
        shape: of the graph.
    """

    edges: tuple[str, ...]
    change: Float[Tensor, " edge"]
    along: Float[Tensor, " edge"]
    kept: Bool[Tensor, " edge"]
    run: Bool[Tensor, " edge"]
    done: Bool[Tensor, " edge"]
    full: Float[Tensor, " prompt"]
    empty: Float[Tensor, " prompt"]
    tau: float
    signed: bool
    rounds: int
    runs: int
    metric: str
    unit: str
    ablation: str
    shape: Mapping[str, Any]
    provenance: Provenance

    def __repr__(self) -> str:
        part = "" if self.finished else f", {int(self.done.sum())} decided"
        return (
            f"AcdcRecord({len(self.edges)} edges{part}, {int(self.kept.sum())} kept at tau {self.tau:g}; "
            f"{self.rounds} rounds, {self.runs} runs; {self.metric}, {self.ablation} ablation)"
        )

    @property
    def finished(self) -> bool:
        """Whether every edge was tried."""
        return bool(self.done.all())

    @property
    def graph(self) -> Graph:
        """The graph that was searched."""
        return Graph.shaped(**self.shape)

    @property
    def mask(self) -> Bool[Tensor, "source dest *position"]:
        """The circuit: the edges that stay."""
        return self.graph.mask(
            edge for edge, stays in zip(self.edges, self.kept.tolist(), strict=True) if stays
        )

    @property
    def values(self) -> Float[Tensor, "source dest *position"]:
        """:attr:`change` where each edge stands in a mask; NaN where there is none."""
        graph = self.graph
        numbers = torch.tensor([graph.number(edge) for edge in self.edges])
        values = torch.full(graph.full.shape, torch.nan, dtype=torch.float64)
        values[tuple(axis[numbers] for axis in graph.index)] = self.change
        return values

    def to_frame(self) -> DataFrame:
        """One row for each edge in its order: ``edge``, ``change``, ``kept``, ``run``, ``done``, ``metric``."""
        import pandas as pd

        return pd.DataFrame({
            "edge": list(self.edges),
            "change": self.change.tolist(),
            "kept": self.kept.tolist(),
            "run": self.run.tolist(),
            "done": self.done.tolist(),
            "metric": self.along.tolist(),
        })  # fmt: skip

    def plot(self, *, title: str | None = None) -> Figure:
        """The circuit's metric along the removals, with the edges that stay, and both ends."""
        from interp.discovery.curves import removals

        return removals(self, title=title or f"ACDC, τ = {self.tau:g}, {self.ablation} ablation")
