"""A circuit as a set of edges: union, intersection, difference, subsets.

Sets are of one graph: edges of different graphs have the same names and are not the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from interp.circuits import fields, pruning
from interp.errors import CircuitError
from interp.graph import Graph

__all__ = ["EdgeSet"]

C = TypeVar("C", bound="EdgeSet")
_SHARED = ("model", "weights_hash", "metric", "ablation", "prompts")


class EdgeSet:
    """What :class:`Circuit` is as a set. Equality is by edges and graph alone.

    Combining keeps the model, its weights, the metric, the ablation and the prompts where both agree,
    and the roles of both for the nodes that are left; sources, measurements and scores were of the
    circuits themselves and are not kept.
    """

    if TYPE_CHECKING:
        name: str
        edges: frozenset[str]
        shape: Mapping[str, Any]
        roles: Mapping[str, tuple[str, ...]]

    @property
    def graph(self) -> Graph:
        """The whole graph that this is a part of."""
        return fields.graph_of(self.shape)

    @cached_property
    def ordered(self) -> tuple[str, ...]:
        """Its edges in the order of the graph."""
        return tuple(sorted(self.edges, key=self.graph.number))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The ends of its edges, in the order of the graph."""
        ends = pruning.ends(self.edges)
        return tuple(node for node in self.graph.nodes if node in ends)

    @property
    def size(self) -> int:
        """How many edges it has."""
        return len(self.edges)

    @property
    def density(self) -> float:
        """Its share of the graph's edges."""
        return len(self.edges) / len(self.graph.edges)

    def __len__(self) -> int:
        return len(self.edges)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ordered)

    def __contains__(self, name: object) -> bool:
        """Whether an edge, or a node (a name without an arrow), belongs to the circuit."""
        return name in self.edges or name in self.nodes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EdgeSet):
            return NotImplemented
        return self.edges == other.edges and self.shape == other.shape

    def __hash__(self) -> int:
        return hash((self.edges, json.dumps(self.shape, sort_keys=True)))

    def __or__(self: C, other: C) -> C:
        return self._combined(other, "|", frozenset.union)

    def __and__(self: C, other: C) -> C:
        return self._combined(other, "&", frozenset.intersection)

    def __sub__(self: C, other: C) -> C:
        return self._combined(other, "-", frozenset.difference)

    def __xor__(self: C, other: C) -> C:
        return self._combined(other, "^", frozenset.symmetric_difference)

    def __le__(self: C, other: C) -> bool:
        return self._beside(other).edges >= self.edges

    def __lt__(self: C, other: C) -> bool:
        return self._beside(other).edges > self.edges

    def __ge__(self: C, other: C) -> bool:
        return self._beside(other).edges <= self.edges

    def __gt__(self: C, other: C) -> bool:
        return self._beside(other).edges < self.edges

    def jaccard(self: C, other: C) -> float:
        """Edges in both over edges in either: 0 none shared, 1 the same (two empty ones too).

        Raises:
            CircuitError: circuits of different graphs.
        """
        either = self.edges | self._beside(other).edges
        return len(self.edges & other.edges) / len(either) if either else 1.0

    def _beside(self: C, other: C) -> C:
        """The other circuit, if it is of the same graph."""
        if not isinstance(other, EdgeSet):
            raise CircuitError(
                f"circuit {self.name!r} goes with another circuit, got {type(other).__name__}; "
                "make one first: Circuit('other', edges, shape)."
            )
        if self.shape != other.shape:
            raise CircuitError(
                f"circuits {self.name!r} and {other.name!r} are of different graphs, "
                f"{fields.difference(self.shape, other.shape)}; expected two circuits of one graph."
            )
        return other

    def _combined(
        self: C, other: C, sign: str, of: Callable[[frozenset[str], frozenset[str]], frozenset[str]]
    ) -> C:
        """A new circuit of the same kind."""
        edges = of(self.edges, self._beside(other).edges)
        ends = pruning.ends(edges)
        both = {n: (*self.roles.get(n, ()), *other.roles.get(n, ())) for n in self.graph.nodes}
        same = {
            key: getattr(self, key) for key in _SHARED if getattr(self, key) == getattr(other, key)
        }
        return type(self)(
            name=f"{self.name} {sign} {other.name}",
            edges=edges,
            shape=self.shape,
            roles={node: own for node, own in both.items() if own and node in ends},
            method={"operation": sign, "circuits": [self.name, other.name]},
            **same,
        )  # type: ignore[call-arg]
