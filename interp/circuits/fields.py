"""What the fields of a circuit may hold: each check returns the field in its one form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from interp.errors import CircuitError, GraphError, nearest
from interp.graph import Graph

__all__ = ["check_scores", "difference", "edges_of", "graph_of", "node_in", "plain", "roles_of",
           "shape_of"]  # fmt: skip


def graph_of(shape: Mapping[str, Any]) -> Graph:
    """The graph of a shape; made once, since a large one has tens of thousands of edges."""
    return _graph(json.dumps(dict(shape), sort_keys=True))


@lru_cache(maxsize=16)
def _graph(shape: str) -> Graph:
    return Graph.shaped(**json.loads(shape))


def shape_of(name: str, shape: Any, positions: Iterable[str] = ()) -> dict[str, Any]:
    """A graph's shape in its one form, with the groups of positions if they are given apart."""
    if not isinstance(shape, Mapping):
        raise CircuitError(
            f"the shape of circuit {name!r} is {shape!r}, expected that of a graph, such as "
            "{'n_layers': 12, 'n_heads': 12}: give Graph.of(model).shape."
        )
    given = tuple(positions)
    try:
        whole = Graph.shaped(**{**({"positions": given} if given else {}), **shape}).shape
    except (GraphError, TypeError, ValueError) as error:
        raise CircuitError(f"circuit {name!r} is of no graph: {error}") from None
    if given and tuple(whole.get("positions", ())) != given:
        raise CircuitError(
            f"circuit {name!r} has positions {list(given)}, but its shape has "
            f"{list(whole.get('positions', ()))}; expected the same in both, or in one alone."
        )
    return whole


def edges_of(name: str, graph: Graph, edges: Any) -> frozenset[str]:
    """Edges in the graph's own spelling."""
    if isinstance(edges, str) or not isinstance(edges, Iterable):
        raise CircuitError(
            f"the edges of circuit {name!r} are {edges!r}, expected several: ['m0->logits', ...]."
        )
    found = []
    for edge in edges:
        try:
            found.append(graph.edges[graph.number(edge)])
        except (GraphError, AttributeError, TypeError) as error:
            said = (
                error if isinstance(error, GraphError) else f"{edge!r} is not the name of an edge."
            )
            raise CircuitError(f"circuit {name!r}: {said}") from None
    return frozenset(found)


def node_in(name: str, graph: Graph, node: Any) -> str:
    """A node of the graph."""
    if node not in graph.nodes:
        raise CircuitError(
            f"circuit {name!r} names {node!r}, which is no node of its graph; "
            f"nearest: {nearest(str(node), graph.nodes)}."
        )
    return node


def roles_of(name: str, graph: Graph, roles: Any) -> dict[str, tuple[str, ...]]:
    """The roles of nodes, in the graph's order; one role may be given as text."""
    if not isinstance(roles, Mapping):
        raise CircuitError(
            f"the roles of circuit {name!r} are {roles!r}, expected nodes with their roles: "
            "{'a9.h9': ['name mover']}."
        )
    own = {}
    for node, given in roles.items():
        several = (given,) if isinstance(given, str) else given
        fit = isinstance(several, Iterable) and all(isinstance(one, str) and one for one in several)
        if not fit:
            raise CircuitError(
                f"the roles of {node!r} in circuit {name!r} are {given!r}, expected text or a list "
                "of texts: ['name mover']."
            )
        own[node_in(name, graph, node)] = tuple(dict.fromkeys(several))
    return {node: own[node] for node in graph.nodes if own.get(node)}


def plain(name: str, field: str, value: Any) -> dict[str, Any]:
    """A mapping of what JSON can hold, as JSON gives it back."""
    if not isinstance(value, Mapping):
        raise CircuitError(f"{field} of circuit {name!r} is {value!r}, expected a mapping.")
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CircuitError(
            f"{field} of circuit {name!r} cannot be written as JSON ({error}): expected numbers, "
            "text, None, lists and mappings of those. Write None for what is not a number."
        ) from None


def check_scores(name: str, graph: Graph, scores: Any) -> None:
    """Scores are of the circuit's graph.

    Raises:
        CircuitError: they have other sources, destinations or positions.
    """
    if scores is None:
        return
    for axis in ("sources", "dests", "positions"):
        own, theirs = getattr(graph, axis), tuple(getattr(scores, axis, ()))
        if own != theirs:
            raise CircuitError(
                f"the scores given to circuit {name!r} have {len(theirs)} {axis} "
                f"({_first(theirs, own)}), its graph has {len(own)} ({_first(own, theirs)}); "
                "expected scores of the same graph."
            )


def _first(these: tuple[str, ...], those: tuple[str, ...]) -> str:
    """What one has and the other has not."""
    missing = [one for one in these if one not in those]
    return f"such as {missing[0]!r}" if missing else "in another order or fewer"


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where two shapes differ, as text: ``n_layers 2 and 3``."""
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return ", ".join(f"{key} {one.get(key)} and {other.get(key)}" for key in keys)
