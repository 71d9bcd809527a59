r"""Is something missing? Remove the same nodes from the circuit and from the model, and compare.

A circuit :math:`C` is *complete* if it breaks as the model :math:`M` breaks: for every set
:math:`K` of its nodes,

.. math:: |F(C \setminus K) - F(M \setminus K)|

is small, F being the metric's mean over prompts. A backup that the circuit has not, and that does
nothing while the heads it backs up are there, shows only here. There are too many sets to try all, so
three kinds are: random ones, each role, and sets grown greedily to make the difference large.

Removing nodes is removing every edge that begins or ends at them. Embeddings and logits are never
removed: they are nodes of every circuit, and nothing is left without them.

Source: Wang et al. 2022, arXiv:2211.00593, section 4 and its appendix on greedy sets.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.runs import Runs, blocks_of, nodes_of, touching

__all__ = ["Removals", "random_sets", "removals", "role_sets"]

Mask = Bool[Tensor, "source dest *position"]


@dataclass(frozen=True, eq=False)
class Removals:
    """The same sets of nodes, removed from the circuit and from the model.

    Attributes:
        sets: the nodes of each set; the first is the empty one.
        kinds: ``"none"``, ``"random"``, ``"greedy"`` or the name of a role.
        circuit: F(C \\ K), each prompt's score.
        model: F(M \\ K).
    """

    sets: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    circuit: Float[Tensor, "set prompt"]
    model: Float[Tensor, "set prompt"]


def removals(
    runs: Runs,
    circuit: Mask,
    roles: Mapping[str, Sequence[str]],
    *,
    n_random: int,
    n_greedy: int,
    candidates: int = 5,
    steps: int = 5,
    seed: int,
) -> Removals:
    """Measure F(C \\ K) and F(M \\ K) for sets K of a circuit's nodes.

    Args:
        circuit: the circuit's edges.
        roles: the roles of each node; each role is a set.
        n_random: how many random sets; each node of the circuit is in each with probability 1/2.
        n_greedy: how many sets to grow. A set grows by that one of ``candidates`` random nodes which
            makes \\|F(C \\ K) - F(M \\ K)\\| largest, ``steps`` times; of the sets on its way the
            worst is kept.
    """
    graph = runs.graph
    nodes = blocks_of(nodes_of(graph, circuit))
    found: dict[frozenset[str], str] = {frozenset(): "none"}
    for kind, chosen in role_sets(nodes, roles).items():
        found.setdefault(frozenset(chosen), kind)
    for chosen in random_sets(nodes, n_random, seed=seed):
        found.setdefault(frozenset(chosen), "random")
    draw = random.Random(seed + 1)
    for _ in range(n_greedy if nodes else 0):
        found.setdefault(_grown(runs, circuit, nodes, candidates, steps, draw), "greedy")
    sets = tuple(tuple(node for node in nodes if node in chosen) for chosen in found)
    broken = [~touching(graph, chosen) for chosen in sets]
    together = runs([*(circuit & left for left in broken), *(graph.full & left for left in broken)])
    return Removals(sets, tuple(found.values()), together[: len(sets)], together[len(sets) :])


def role_sets(
    nodes: Sequence[str], roles: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """For each role, the nodes that have it."""
    names = dict.fromkeys(role for node in nodes for role in roles.get(node, ()))
    return {name: tuple(n for n in nodes if name in roles.get(n, ())) for name in names}


def random_sets(nodes: Sequence[str], n: int, *, seed: int) -> tuple[tuple[str, ...], ...]:
    """Random sets of nodes, each node in each with probability 1/2."""
    draw = random.Random(seed)
    return tuple(tuple(node for node in nodes if draw.random() < 0.5) for _ in range(n))


def _grown(
    runs: Runs, circuit: Mask, nodes: Sequence[str], candidates: int, steps: int,
    draw: random.Random,
) -> frozenset[str]:  # fmt: skip
    """The worst of the sets on one greedy way."""
    grown: frozenset[str] = frozenset()
    worst, worst_score = grown, -1.0
    for _ in range(min(steps, len(nodes))):
        left = [node for node in nodes if node not in grown]
        options = [grown | {node} for node in draw.sample(left, min(candidates, len(left)))]
        broken = [~touching(runs.graph, option) for option in options]
        masks = [*(circuit & one for one in broken), *(runs.graph.full & one for one in broken)]
        means = runs(masks).double().mean(-1)
        scores = (means[: len(options)] - means[len(options) :]).abs().tolist()
        best = max(range(len(options)), key=scores.__getitem__)
        grown = options[best]
        if scores[best] > worst_score:
            worst, worst_score = grown, scores[best]
    return worst
