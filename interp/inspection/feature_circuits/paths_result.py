"""Paths that lead to a feature, and the graph they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import ResultError
from interp.inspection.feature_circuits.node import Node
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from networkx import DiGraph
    from pandas import DataFrame

__all__ = ["FeaturePaths"]


@dataclass(frozen=True, eq=False, repr=False)
class FeaturePaths(Stored):
    """Paths to one feature at one token. Made by :func:`feature_paths`.

    Attributes:
        feature: where they lead, ``"L3.mlp.F12@9"``.
        tokens: the prompt as text.
        activation: the feature's.
        paths: names of the nodes, the feature first; the shortest paths first, of one length the strongest.
        contributions: of each node of each path to the feature's pre-activation, along the path; that of
            the feature itself is its activation.
        provenance: model, versions and the call.
    """

    feature: str
    tokens: tuple[str, ...]
    activation: float
    paths: tuple[tuple[str, ...], ...]
    contributions: tuple[tuple[float, ...], ...]
    provenance: Provenance

    def __repr__(self) -> str:
        if not self.paths:
            return f"FeaturePaths({self.feature}: none)"
        longest = max(map(len, self.paths))
        best = next(path for path in self.paths if len(path) == longest)
        return f"FeaturePaths({len(self.paths)} paths; {' ← '.join(best)})"

    def to_frame(self) -> DataFrame:
        """A row for each path: ``edges`` (its length), ``path``, ``contribution`` of its last node, ``share`` of
        the feature's activation, and ``token`` it comes from."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for path, values in zip(self.paths, self.contributions, strict=True):
            place = Node.parse(path[-1]).place
            rows.append({
                "edges": len(path) - 1, "path": " ← ".join(path), "contribution": values[-1],
                "share": values[-1] / self.activation, "token": "" if place is None else self.tokens[place],
            })  # fmt: skip
        return pd.DataFrame(rows, columns=["edges", "path", "contribution", "share", "token"])

    @property
    def features(self) -> tuple[str, ...]:
        """The features on the paths, by name, without the one that they lead to."""
        names = sorted({name for path in self.paths for name in path[1:]})
        return tuple(name for name in names if Node.parse(name).kind == "feature")

    @property
    def edges(self) -> dict[tuple[str, str], float]:
        """From node to node towards the feature: the contribution to it that passes, over all paths.

        A piece that several paths have in common counts once.
        """
        found: dict[tuple[str, str], float] = {}
        seen: set[tuple[str, ...]] = set()
        for path, values in zip(self.paths, self.contributions, strict=True):
            for i in range(1, len(path)):
                if path[: i + 1] not in seen:
                    seen.add(path[: i + 1])
                    edge = (path[i], path[i - 1])
                    found[edge] = found.get(edge, 0.0) + values[i]
        return found

    def graph(self) -> DiGraph:
        """The paths as a directed graph of networkx, towards the feature.

        Nodes have ``kind``, ``layer``, ``position`` and ``token``; edges have ``contribution``.
        """
        import networkx as nx

        made: DiGraph = nx.DiGraph()
        for name in dict.fromkeys([self.feature, *(name for path in self.paths for name in path)]):
            node = Node.parse(name)
            made.add_node(
                name, kind=node.kind, layer=node.layer, position=node.position,
                token="" if node.place is None else self.tokens[node.place],
            )  # fmt: skip
        for (start, end), value in self.edges.items():
            made.add_edge(start, end, contribution=value)
        return made

    def plot(self, *, labels: Mapping[str, str] | None = None, title: str | None = None) -> Figure:
        """The graph over the prompt: tokens to the right, layers upwards; wide edges carry much.

        Args:
            labels: what to write under a feature, by its name without position (``"L1.mlp.F12"``).

        Raises:
            ResultError: there are no paths.
        """
        from interp.inspection.feature_circuits.paths_figure import paths_figure

        if not self.paths:
            raise ResultError(f"no paths lead to {self.feature}: nothing to draw.")
        return paths_figure(self, labels or {}, title=title)
