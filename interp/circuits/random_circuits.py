"""Circuits that chance could find: of so many edges, each on a way from an embedding to the logits.

Of a few edges drawn one by one hardly any two meet, so such a set carries nothing, and beating it is
no feat. The circuits drawn here hang together: walks go backwards from what is reached already (at
first the logits) along random edges until they meet an embedding or the circuit.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from interp.errors import CircuitError
from interp.graph import Graph, node_of, split_edge

__all__ = ["random_connected", "random_edges"]

_EMBEDDINGS = ("embed", "pos_embed")
_TRIES = 20

Into = Mapping[
    str, Sequence[tuple[str, str]]
]  # node -> (edge, source) of each edge that ends there


def random_edges(
    graph: Graph, n: int, *, n_circuits: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Sets of ``n`` edges, each drawn without replacement from all.

    Raises:
        CircuitError: the graph has no ``n`` edges.
    """
    _check(graph, n)
    draw = random.Random(seed)
    return tuple(tuple(draw.sample(graph.edges, n)) for _ in range(n_circuits))


def random_connected(
    graph: Graph, n: int, *, n_circuits: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Random circuits of ``n`` edges whose every edge lies on a way from an embedding to the logits.

    A walk that would take too many edges is dropped, and after some such the last places are filled
    with edges between nodes of the circuit. Where there are no more of those (few nodes, joined in
    every way already) it is begun again, and if that never helps, edges that hang loose are taken. With positions a way is one of nodes,
    whatever the positions of its edges.

    Raises:
        CircuitError: the graph has no ``n`` edges.
    """
    _check(graph, n)
    draw = random.Random(seed)
    into: dict[str, list[tuple[str, str]]] = {node: [] for node in graph.nodes}
    for edge in graph.edges:
        source, dest, _ = split_edge(edge)
        into[node_of(dest)].append((edge, source))
    return tuple(_grown(into, n, draw) for _ in range(n_circuits))


def _check(graph: Graph, n: int) -> None:
    if not 0 <= n <= len(graph.edges):
        raise CircuitError(f"n={n} edges of {graph}; expected 0 to {len(graph.edges)}.")


def _grown(into: Into, n: int, draw: random.Random) -> tuple[str, ...]:
    """A circuit of ``n`` edges; begun again where some would hang loose."""
    for _ in range(_TRIES):
        chosen, reached = _walked(into, n, draw)
        chosen = _filled(chosen, _between(into, reached), n, draw)
        if len(chosen) == n:
            return chosen
    return _filled(chosen, [edge for own in into.values() for edge, _ in own], n, draw)


def _filled(
    chosen: tuple[str, ...], others: Sequence[str], n: int, draw: random.Random
) -> tuple[str, ...]:
    """With as many of the others as there is room for."""
    taken = set(chosen)
    left = [edge for edge in others if edge not in taken]
    return (*chosen, *draw.sample(left, min(n - len(chosen), len(left))))


def _walked(into: Into, n: int, draw: random.Random) -> tuple[tuple[str, ...], dict[str, None]]:
    """At most ``n`` edges of walks, and the nodes they reach."""
    chosen: dict[str, None] = {}
    reached: dict[str, None] = {"logits": None}
    failed = 0
    while len(chosen) < n and failed < _TRIES:
        way = _walk(into, draw.choice(list(reached)), reached, draw)
        new = [edge for edge in way if edge not in chosen]
        if not new or len(chosen) + len(new) > n:
            failed += 1
            continue
        failed = 0
        chosen.update(dict.fromkeys(new))
        reached.update({source: None for source in way.values() if source not in _EMBEDDINGS})
    return tuple(chosen), reached


def _walk(
    into: Into, start: str, reached: Mapping[str, None], draw: random.Random
) -> dict[str, str]:
    """Random edges backwards from a node to an embedding or a reached node, with their sources."""
    way: dict[str, str] = {}
    node = start
    while not way or node not in (*_EMBEDDINGS, *reached):
        edge, node = draw.choice(into[node])
        way[edge] = node
    return way


def _between(into: Into, reached: Mapping[str, None]) -> list[str]:
    """The edges between nodes of a circuit."""
    inside = {*reached, *_EMBEDDINGS}
    return [edge for node in reached for edge, source in into[node] if source in inside]
