"""Which edges of a circuit hang together: paths from an embedding to the logits.

An edge that is on no such path *dangles*. There are two kinds, and they are not alike:

- **Nothing kept reads its destination.** What the destination then writes is ablated everywhere, so
  the edge changes nothing, whatever ablation is used.
- **Nothing kept reaches its source.** The source then computes from ablated inputs. Under resample
  ablation it computes what it wrote in the other run, which is what an ablated edge carries: nothing
  changes. Under zero or mean ablation it is different: a node of zero input still writes its biases,
  and a function of means is not the mean of the function. There the edge counts, and leaving it out
  gives another circuit.

So pruning is a choice of its own and no part of evaluation. EAP-IG prunes a graph in place before it
evaluates it; here a new circuit is made and the old one stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from interp.graph import node_of, split_edge

__all__ = ["connected", "ends"]

_EMBEDDINGS = ("embed", "pos_embed")


def ends(edges: Iterable[str]) -> set[str]:
    """The nodes at either end of some edges.

    >>> sorted(ends(["m0->a1.h3<q>@S2"]))
    ['a1.h3', 'm0']
    """
    return {node for edge in edges for node in _ends(edge)}


def connected(edges: Iterable[str]) -> frozenset[str]:
    """The edges on a path from an embedding to the logits.

    A path goes through a head by any of its inputs. Positions do not part paths: a head moves from
    the column of its keys to that of its queries.

    >>> sorted(connected(["embed->m0", "m0->logits", "m0->m1", "m1->m2", "m3->logits"]))
    ['embed->m0', 'm0->logits']
    """
    pairs = {edge: _ends(edge) for edge in edges}
    onward: dict[str, set[str]] = {}
    back: dict[str, set[str]] = {}
    for source, dest in pairs.values():
        onward.setdefault(source, set()).add(dest)
        back.setdefault(dest, set()).add(source)
    reached, used = _closure(onward, _EMBEDDINGS), _closure(back, ("logits",))
    return frozenset(edge for edge, (source, dest) in pairs.items()
                     if source in reached and dest in used)  # fmt: skip


def _ends(edge: str) -> tuple[str, str]:
    source, dest, _ = split_edge(edge)
    return source, node_of(dest)


def _closure(steps: dict[str, set[str]], start: Iterable[str]) -> set[str]:
    """Everything that can be reached from the start, the start with it."""
    found, ahead = set(start), list(start)
    while ahead:
        new = steps.get(ahead.pop(), set()) - found
        found |= new
        ahead.extend(new)
    return found
