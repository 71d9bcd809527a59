"""Scores of edges as a drawing needs them: one number for each edge that has one.

A score is metric(edge ablated) - metric(nothing ablated): negative where the edge helps. Anything
with ``sources``, ``dests`` and ``values`` (:class:`interp.EdgeScores`) is read, or a mapping from
edges to numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from interp.errors import CircuitError, nearest

__all__ = ["EdgeValues"]


@dataclass(frozen=True)
class EdgeValues:
    """The finite scores of edges.

    Attributes:
        of: each scored edge's score, in the order of the graph.
        what: what a score is, in words, with its unit.
        method: how they were measured; empty where not known.
        signed: whether they have a sign; if not, they are sizes.
    """

    of: Mapping[str, float] = field(default_factory=dict)
    what: str = "change of the metric if ablated"
    method: str = ""
    signed: bool = True

    @classmethod
    def read(cls, scores: Any) -> EdgeValues:
        """Read scores of any of the kinds above; None: no scores.

        Raises:
            CircuitError: it is none of them, or its shape does not fit its names.
        """
        if scores is None:
            return cls()
        if isinstance(scores, EdgeValues):
            return scores
        if isinstance(scores, Mapping):
            found = {str(edge): float(value) for edge, value in scores.items()}
            return cls({edge: value for edge, value in found.items() if math.isfinite(value)})
        if not all(hasattr(scores, name) for name in ("sources", "dests", "values")):
            raise CircuitError(
                f"scores of type {type(scores).__name__} cannot be drawn; expected what "
                "interp.attribute(model, prompts, 'edges') returns, or a mapping from edges to numbers."
            )
        what, method = getattr(scores, "what", cls.what), getattr(scores, "method", "")
        return cls(_finite(scores), str(what), str(method), bool(getattr(scores, "signed", True)))

    def for_circuit(self, circuit: Any) -> EdgeValues:
        """These scores in the order of the circuit's graph.

        Raises:
            CircuitError: one is of no edge of the graph, or none of an edge of the circuit.
        """
        edges = circuit.graph.edges
        if strange := self.of.keys() - set(edges):
            raise CircuitError(
                f"{len(strange)} of {len(self.of)} scores are of no edge of the graph of {circuit.name!r}, such "
                f"as {min(strange)!r}: nearest {nearest(min(strange), edges, n=1)}. Score the circuit's own "
                "graph, with its positions."
            )
        if self.of and not any(edge in self.of for edge in circuit.edges):
            raise CircuitError(
                f"none of the {len(circuit.edges)} edges of {circuit.name!r} has a score; these scores are of "
                f"others, such as {next(iter(self.of))!r}."
            )
        return replace(self, of={edge: self.of[edge] for edge in edges if edge in self.of})

    def ranked(self, edges: Iterable[str], *, signed: bool = False) -> tuple[str, ...]:
        """Edges by |score|, largest first; ties in the order given, those without a score last.

        ``signed``: from the most negative to the most positive, as ``EdgeScores.ranked`` has it.
        """
        of = self.of
        key = {edge: value if signed else -abs(value) for edge, value in of.items()}
        return tuple(sorted(edges, key=lambda edge: key.get(edge, math.inf)))

    def nodes(self) -> dict[str, float]:
        """The score of each source: the sum of the scores of all its outgoing edges."""
        out: dict[str, float] = {}
        for edge, value in self.of.items():
            source = edge.partition("->")[0]
            out[source] = out.get(source, 0.0) + value
        return out


def _finite(scores: Any) -> dict[str, float]:
    """Scores with a number, destination by destination, as a graph orders its edges."""
    sources, dests = tuple(scores.sources), tuple(scores.dests)
    positions = tuple(getattr(scores, "positions", ()) or ())
    values = torch.as_tensor(scores.values).detach().to("cpu", torch.float64)
    expected = [len(sources), len(dests), *([len(positions)] if positions else [])]
    if list(values.shape) != expected:
        raise CircuitError(
            f"scores of shape {list(values.shape)} for {len(sources)} sources, {len(dests)} "
            f"destinations and {len(positions)} positions; expected {expected}."
        )
    ends = [f"@{name}" for name in positions] or [""]
    by_dest = values.reshape(len(sources), len(dests), -1).transpose(0, 1)
    places = by_dest.isfinite().nonzero().tolist()
    return {f"{sources[s]}->{dests[d]}{ends[p]}": float(by_dest[d, s, p]) for d, s, p in places}
