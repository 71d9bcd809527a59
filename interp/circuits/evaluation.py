r"""Is it the circuit? Faithfulness, completeness, minimality, and what chance would give.

1. **Faithfulness**: keep the circuit's edges, ablate all others:
   :math:`f = (F(C) - F(∅)) / (F(M) - F(∅))`, a ratio of means over prompts, never clipped, refused
   where its denominator is near 0. The complement (all edges but the circuit's) is measured too.
2. **Completeness**: :math:`|F(C \setminus K) - F(M \setminus K)|` over sets K of its nodes.
3. **Minimality**: :math:`\max_K |F(C \setminus (K ∪ \{v\})) - F(C \setminus K)|` for each member v.
4. **Chance**: random circuits of as many edges, drawn edge by edge and grown connected; random
   non-members put in.

Evaluation changes no circuit: nothing is pruned, and edges that lead nowhere are kept as they are.

Source: Wang et al. 2022, arXiv:2211.00593, section 4; normalised as in Mueller et al. 2025,
arXiv:2504.13151 (MIB).
"""

from __future__ import annotations

from typing import Any

import torch

from interp.circuits.acquaintance import check_fits, check_prompts
from interp.circuits.completeness import removals
from interp.circuits.evaluation_result import CircuitEvaluation
from interp.circuits.minimality import minimal_edges, minimal_nodes
from interp.circuits.random_circuits import random_connected, random_edges
from interp.circuits.runs import Runs, nodes_of, setting_of
from interp.circuits.shares import MIN_GAP, gap
from interp.errors import CircuitError
from interp.results import Provenance

__all__ = ["evaluate"]


def evaluate(
    circuit: Any,
    where: Any,
    prompts: Any = None,
    *,
    metric: Any = None,
    ablation: str | None = None,
    reference: Any = None,
    n_random: int = 25,
    completeness_sets: int = 10,
    greedy_sets: int = 1,
    minimality_sets: int = 4,
    edge_sets: int = 0,
    n_chance: int = 10,
    members: bool = True,
    threshold: float = 0.01,
    min_gap: float = MIN_GAP,
    seed: int = 0,
    show: bool | None = None,
) -> CircuitEvaluation:
    """Measure how faithful, complete and minimal a circuit is.

    Runs about ``2 · n_random + 2 · (completeness_sets + roles) + 50 · greedy_sets + nodes ·
    (minimality_sets + roles + 1) + edges · (edge_sets + 1) + 2 · n_chance`` sets of edges on all
    prompts, the same set once. With all counts 0, and ``members=False``, it runs two, and two for each role.

    Args:
        where: a model, or a :class:`~interp.graph.setting.Setting`, which has prompts of its own.
        prompts: prompts that the circuit was *not* found on.
        metric, ablation: None: the circuit's own. The metric may be a name, a Metric or a callable.
        reference: for mean ablation: other prompts whose means stand where an edge is ablated.
        n_random: how many random circuits of each kind.
        completeness_sets: random sets K, beside one for each role and ``greedy_sets`` grown to be bad.
        minimality_sets: random sets K for each node, beside ∅ and its roles.
        edge_sets: random sets K for each edge, beside ∅.
        n_chance: random non-members that are put in, to see what one does.
        members: whether to ask which nodes and edges are needed (minimality); most of the runs.
        threshold: the least effect of a needed member, as a share of \\|F(M)\\|.
        min_gap: the least gap to divide by, in the metric's unit.
        seed: of all random sets.

    Raises:
        CircuitError: the circuit is of a model of another shape, or there are no prompts.
        GapError: F(M) and F(∅) are too close.

    Warns if the prompts are (partly) those the circuit was found on, and if the weights are others.
    """
    setting = setting_of(
        where, prompts, metric=metric or circuit.metric, ablation=ablation or circuit.ablation,
        reference=reference, graph=circuit.graph,
    )  # fmt: skip
    if min(n_random, completeness_sets, greedy_sets, minimality_sets, edge_sets, n_chance) < 0:
        raise CircuitError("numbers of random sets and circuits are counts: 0 or more.")
    check_fits(circuit, setting.model, setting.graph)
    seen = check_prompts(circuit, setting.prompts)
    runs = Runs(setting, what=f"evaluating {circuit.name}", show=show)
    graph, mask = runs.graph, setting.graph.mask(circuit.edges)
    gap(runs.full, runs.empty, min_gap=min_gap)
    kept, complement = runs([mask, graph.full & ~mask])
    removed = removals(
        runs, mask, circuit.roles, n_random=completeness_sets, n_greedy=greedy_sets, seed=seed
    )
    asked = mask if members else mask & False
    n_chance *= members
    nodes = minimal_nodes(
        runs, asked, circuit.roles, n_sets=minimality_sets, n_chance=n_chance, seed=seed
    )
    edges = minimal_edges(runs, asked, n_sets=edge_sets, n_chance=n_chance, seed=seed)
    n = len(circuit.edges)
    scattered = random_edges(graph, n, n_circuits=n_random, seed=seed)
    grown = random_connected(graph, n, n_circuits=n_random, seed=seed)
    by_one = runs((graph.mask(one) for one in scattered), total=n_random)
    by_growth = runs((graph.mask(one) for one in grown), total=n_random)
    notes = [f"{seen} of the {len(setting.prompts)} prompts are those the circuit was found on"]
    return CircuitEvaluation(
        circuit=circuit.name, n_edges=n, n_nodes=len(nodes_of(graph, mask)), n_graph=len(graph.edges),
        metric=setting.metric.name, unit=setting.metric.unit, ablation=setting.ablation,
        kept=kept, full=runs.full, empty=runs.empty, complement=complement,
        sets=removed.sets, kinds=removed.kinds, without=torch.stack([removed.circuit, removed.model]),
        nodes=nodes.members, node_sets=nodes.sets, node_effect=nodes.effect, node_chance=nodes.chance,
        edges=edges.members, edge_sets=edges.sets, edge_effect=edges.effect, edge_chance=edges.chance,
        random_edges=by_one.double().mean(-1), random_connected=by_growth.double().mean(-1),
        threshold=threshold, min_gap=min_gap, notes=tuple(notes if seen else ()),
        provenance=Provenance.of(
            setting.model, setting.prompts, seed=seed, verb="circuits.evaluate", circuit=circuit.name,
            metric=setting.metric.name,
            ablation=setting.ablation, reference=getattr(reference, "hash", None),
            n_random=n_random, completeness_sets=completeness_sets, greedy_sets=greedy_sets,
            minimality_sets=minimality_sets, edge_sets=edge_sets, n_chance=n_chance,
            threshold=threshold, runs=runs.count,
        ),
    )  # fmt: skip
