r"""Is something superfluous? For each member, how much it can matter to the rest of the circuit.

The minimality of a member :math:`v` (a node or an edge) of a circuit :math:`C` is

.. math:: \max_K |F(C \setminus (K ∪ \{v\})) - F(C \setminus K)|

over sets :math:`K` of the circuit's nodes without :math:`v`. With K = ∅ alone, each of two heads that
do the same thing would look superfluous, as the other stands in for it; so K is also each role that
the node has (without the node itself) and some random sets.

How large is that for something which does *not* belong? Chance is measured: random nodes and edges
that are not members are put in, a node with all its edges to and from the circuit's nodes, and
:math:`|F(C ∪ \{w\}) - F(C)|` is what each of them would score as a member.

Source: Wang et al. 2022, arXiv:2211.00593, section 4. Departures: members may be edges; the comparison
with non-members is ours; K is searched over roles and random sets, where the paper chooses K by hand.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.completeness import random_sets, role_sets
from interp.circuits.runs import Runs, blocks_of, nodes_of, touching

__all__ = ["Minimality", "minimal_edges", "minimal_nodes"]

Mask = Bool[Tensor, "source dest *position"]
Sets = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Minimality:
    """What each member's removal does, at the set K where it does most.

    Attributes:
        members: nodes or edges of the circuit.
        sets: for each the K.
        effect: F(C \\ (K ∪ {v})) - F(C \\ K), each prompt's; negative if the member helps.
        chance: F(C ∪ {w}) - F(C), mean over prompts, for random non-members.
    """

    members: tuple[str, ...]
    sets: Sets
    effect: Float[Tensor, "member prompt"]
    chance: Float[Tensor, " draw"]


def minimal_nodes(
    runs: Runs,
    circuit: Mask,
    roles: Mapping[str, Sequence[str]],
    *,
    n_sets: int,
    n_chance: int,
    seed: int,
) -> Minimality:
    """The minimality of each node of a circuit (embeddings and logits are not asked).

    Args:
        n_sets: random sets K beside the empty one and the node's roles.
        n_chance: how many random non-members; fewer where there are no more.
    """
    graph = runs.graph
    nodes = blocks_of(nodes_of(graph, circuit))
    shared = role_sets(nodes, roles), random_sets(nodes, n_sets, seed=seed)
    asked = [(node, k) for node in nodes for k in _sets_for(node, *shared, roles)]

    def without(member: str) -> Mask:
        return ~touching(graph, [member])

    inside = {*nodes_of(graph, circuit), *set(graph.nodes).difference(blocks_of(graph.nodes))}
    others = [node for node in graph.nodes if node not in inside]
    chosen = random.Random(seed + 2).sample(others, min(n_chance, len(others)))
    added = [
        circuit | (touching(graph, [node]) & ~touching(graph, {*others} - {node}))
        for node in chosen
    ]
    return _measured(runs, circuit, asked, without, added)


def minimal_edges(
    runs: Runs, circuit: Mask, *, n_sets: int = 0, n_chance: int, seed: int
) -> Minimality:
    """The minimality of each edge of a circuit, over K = ∅ and random sets of nodes.

    Args:
        n_sets: random sets K beside the empty one. An edge of a removed node is gone already and
            is not asked with that K.
        n_chance: how many random non-members; fewer where there are no more.
    """
    graph = runs.graph
    nodes = blocks_of(nodes_of(graph, circuit))
    sets = ((), *random_sets(nodes, n_sets, seed=seed))
    left = [circuit & ~touching(graph, k) for k in sets]
    asked = [
        (edge, k)
        for edge in graph.names(circuit)
        for k, rest in zip(sets, left, strict=True)
        if bool((rest & graph.mask([edge])).any())
    ]

    def without(member: str) -> Mask:
        return ~graph.mask([member])

    others = graph.names(graph.full & ~circuit)
    chosen = random.Random(seed + 3).sample(others, min(n_chance, len(others)))
    added = [circuit | graph.mask([edge]) for edge in chosen]
    return _measured(runs, circuit, asked, without, added)


def _sets_for(
    node: str,
    by_role: Mapping[str, tuple[str, ...]],
    drawn: Sets,
    roles: Mapping[str, Sequence[str]],
) -> list[tuple[str, ...]]:
    """∅, the roles of a node and the random sets, each without the node itself, none twice."""
    given = [(), *(by_role[role] for role in roles.get(node, ())), *drawn]
    return list(dict.fromkeys(tuple(n for n in k if n != node) for k in given))


def _measured(
    runs: Runs,
    circuit: Mask,
    asked: Sequence[tuple[str, tuple[str, ...]]],
    without: Callable[[str], Mask],
    added: Sequence[Mask],
) -> Minimality:
    """Run all that is asked, and keep for each member the set at which it does most."""
    rest = {k: circuit & ~touching(runs.graph, k) for _, k in asked}
    before = runs(rest[k] for _, k in asked).double()
    removed = (rest[k] & without(member) for member, k in asked)
    effect = runs(removed, total=len(asked)).double() - before
    size = effect.mean(-1).abs().tolist()
    best: dict[str, int] = {}
    for i, (member, _) in enumerate(asked):
        if member not in best or size[i] > size[best[member]]:
            best[member] = i
    chance = runs(added).double().mean(-1) - runs([circuit]).double().mean()
    return Minimality(
        tuple(best),
        tuple(asked[i][1] for i in best.values()),
        effect[list(best.values())],
        chance,
    )
