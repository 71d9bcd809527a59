"""What still reaches the logits by the kept edges of a graph.

An edge whose destination no longer reaches the logits carries what nobody reads: removing it
changes nothing, exactly. (An edge whose source nothing feeds is another matter, and can count: see
:mod:`interp.circuits.pruning`.)

With positions an edge is read at its own column. What an MLP reads, and a head's query, appears
at that column alone; keys and values may be moved to any other.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.graph.graph import Graph
from interp.graph.names import node_of

__all__ = ["live", "reads_of", "spreads", "wide"]


def wide(mask: Bool[Tensor, "source dest *position"]) -> Bool[Tensor, "source dest place"]:
    """The mask with an axis of positions; of length 1 where the graph has none."""
    return mask if mask.ndim == 3 else mask[..., None]


def spreads(dest: str) -> bool:
    """Whether what is read here at one position may be written at others: keys and values."""
    return dest.endswith(("<k>", "<v>"))


def reads_of(graph: Graph) -> list[list[int]]:
    """For each source, which destinations belong to its node; none for embeddings."""
    number = {name: i for i, name in enumerate(graph.sources)}
    found: list[list[int]] = [[] for _ in graph.sources]
    for d, dest in enumerate(graph.dests):
        if (node := node_of(dest)) in number:
            found[number[node]].append(d)
    return found


def live(
    graph: Graph, kept: Bool[Tensor, "source dest *position"]
) -> Bool[Tensor, "source dest *position"]:
    """The kept edges that something on the way to the logits reads; a new mask."""
    mask = wide(kept)
    read = torch.zeros(mask.shape[1:], dtype=torch.bool)
    read[graph.dests.index("logits")] = True
    for source, dests in reversed(list(enumerate(reads_of(graph)))):
        written = (mask[source] & read).any(0)
        for dest in dests:
            read[dest] = written.any() if spreads(graph.dests[dest]) else written
    return (mask & read).view_as(kept)
