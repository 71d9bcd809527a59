"""From scores to circuits: the strongest edges, as they are or made to hang together.

1. The strength of an edge is the size of its score, or (``signed``) how much worse the metric is
   without it: edges whose removal helps then come last.
2. Edges are ranked by strength; equals stand in the order of ``graph.edges``.
3. ``connected=None`` takes the first n. ``"prune"`` then drops those on no path from an embedding
   to the logits, so fewer may be left. ``"greedy"`` starts at the logits and takes, n times, the
   strongest edge whose destination is already reached.

Nothing is changed in place: each function returns a new mask.

Sources: Syed et al. 2023, arXiv:2310.10348 (top n); Hanna et al. 2024, arXiv:2403.17806
(``apply_greedy``). Departure: their greedy circuit is pruned at the end of nodes without inputs,
which is not neutral under zero and mean ablation; ours has n edges, and pruning is another choice.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from operator import index
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.pruning import connected as on_paths
from interp.discovery.connection import reads_of, spreads, wide
from interp.discovery.losses import harm_sign
from interp.errors import RunError
from interp.graph.graph import Graph

__all__ = ["Connection", "Scored", "at_least", "n_edges", "strengths", "top_n"]

Connection = Literal["greedy", "prune"] | None


@runtime_checkable
class Scored(Protocol):
    """What a selection reads of scores; an ``EdgeScores`` is one."""

    @property
    def graph(self) -> Graph: ...
    @property
    def values(self) -> Float[Tensor, "source dest *position"]: ...
    @property
    def metric(self) -> str: ...


def top_n(
    scores: Scored, n: int | float, *, signed: bool = False, connected: Connection = None
) -> Bool[Tensor, "source dest *position"]:
    """The mask of the ``n`` strongest edges.

    Args:
        scores: score = metric(edge ablated) - metric(nothing ablated); NaN: never taken.
        n: a number of edges, or (a float up to 1) a share of all: ``int(n * edges)`` of them.
        signed: rank by how much worse the metric is without the edge, not by the size of the score.
        connected: None, ``"prune"`` or ``"greedy"``; see the module.

    Raises:
        RunError: ``n`` is no such number, or there are not so many edges with a score.
    """
    graph, order = scores.graph, strengths(scores, signed=signed)
    count = n_edges(graph, n)
    if count > (known := int(order.isfinite().sum())):
        raise RunError(f"n={n} asks for {count} edges, and {known} have a score: take fewer.")
    return _selected(graph, order, connected, count, -torch.inf)


def at_least(
    scores: Scored, threshold: float, *, signed: bool = False, connected: Connection = None
) -> Bool[Tensor, "source dest *position"]:
    """The mask of the edges whose strength is at least ``threshold``, in the metric's unit.

    Arguments as in :func:`top_n`; ``"greedy"`` stops where no reached destination has such an edge.

    Raises:
        RunError: a threshold that is not a number.
    """
    if threshold != threshold:
        raise RunError("threshold=nan: expected a number, in the unit of the metric.")
    graph, order = scores.graph, strengths(scores, signed=signed)
    return _selected(graph, order, connected, len(order), threshold)


def n_edges(graph: Graph, n: int | float) -> int:
    """A number of edges, from a number or a share.

    Raises:
        RunError: it is neither, or more than there are.
    """
    total = len(graph.edges)
    if isinstance(n, float):
        if 0 < n <= 1:
            return int(n * total)
        raise RunError(f"n={n}: a float is a share of all {total} edges, above 0 and up to 1.")
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 0 <= index(n) <= total:
        raise RunError(
            f"n={n!r}; expected a number of edges from 0 to {total}, or a share such as 0.05."
        )
    return index(n)


def strengths(scores: Scored, *, signed: bool = False) -> Float[Tensor, " edge"]:
    """How strong each of ``graph.edges`` is; -inf where there is no score.

    Raises:
        RunError: ``signed``, of scores that have no sign.
    """
    if signed and not getattr(scores, "signed", True):
        raise RunError("signed=True, and these scores have no sign: they are sizes. Leave it out.")
    values = scores.values[scores.graph.index].detach().double().cpu()
    strong = values * harm_sign(scores.metric) if signed else values.abs()
    return strong.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _selected(
    graph: Graph, order: Tensor, connected: Connection, most: int, least: float
) -> Bool[Tensor, "source dest *position"]:
    """At most ``most`` edges of a strength of at least ``least``."""
    ways: dict[Any, Callable[[], Tensor]] = {
        None: lambda: _first(graph, order, most, least),
        "prune": lambda: graph.mask(on_paths(graph.names(_first(graph, order, most, least)))),
        "greedy": lambda: _greedy(graph, order, most, least),
    }
    if connected not in ways:
        raise RunError(f"connected={connected!r}; expected None, 'prune' or 'greedy'.")
    return ways[connected]()


def _first(graph: Graph, order: Tensor, most: int, least: float) -> Tensor:
    taken = order.argsort(descending=True, stable=True)[:most]
    taken = taken[(order[taken] >= least) & (order[taken] > -torch.inf)]
    return _mask(graph, taken)


def _greedy(graph: Graph, order: Tensor, most: int, least: float) -> Tensor:
    """From the logits backwards: the strongest edge into what is reached, again and again."""
    place = _places(graph)
    own, strong = reads_of(graph), order.tolist()
    reached = torch.zeros(wide(graph.full).shape[1:], dtype=torch.bool)
    heap: list[tuple[float, int]] = []

    def reach(dest: int, position: int) -> None:
        if not reached[dest, position]:
            reached[dest, position] = True
            for edge in place["into"][dest, position]:
                if strong[edge] >= least and strong[edge] > -torch.inf:
                    heapq.heappush(heap, (-strong[edge], edge))

    n_positions = reached.shape[1]
    for position in range(n_positions):
        reach(graph.dests.index("logits"), position)
    taken: list[int] = []
    while heap and len(taken) < most:
        edge = heapq.heappop(heap)[1]
        taken.append(edge)
        source, _, position = place["of"][edge]
        for dest in own[source]:
            everywhere = spreads(graph.dests[dest])
            for column in range(n_positions) if everywhere else (position,):
                reach(dest, column)
    return _mask(graph, torch.tensor(taken, dtype=torch.long))


def _places(graph: Graph) -> dict[str, dict[Any, Any]]:
    """Where each edge stands, and which edges end at each place."""
    into: dict[tuple[int, int], list[int]] = {}
    axes = [axis.tolist() for axis in graph.index]
    columns = axes[2] if len(axes) == 3 else [0] * len(axes[0])
    of = dict(enumerate(zip(axes[0], axes[1], columns, strict=True)))
    for edge, (_, dest, column) in of.items():
        into.setdefault((dest, column), []).append(edge)
    return {"of": of, "into": into}


def _mask(graph: Graph, numbers: Tensor) -> Tensor:
    mask = torch.zeros_like(graph.full)
    mask[tuple(axis[numbers] for axis in graph.index)] = True
    return mask
