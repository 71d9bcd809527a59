"""Faithful, complete, minimal: by hand on formulas, and on a compiled model whose circuit is known."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from interp.circuits.acquaintance import row_hashes
from interp.circuits.circuit import Circuit
from interp.circuits.completeness import random_sets
from interp.circuits.evaluation import evaluate
from interp.circuits.evaluation_result import CircuitEvaluation
from interp.circuits.random_circuits import random_connected, random_edges
from interp.circuits.runs import Runs, nodes_of, touching
from interp.circuits.shares import share, share_interval
from interp.errors import CircuitError, GapError
from interp.graph import Graph, node_of, split_edge
from interp.graph.setting import Setting
from tests.cases import load_case
from tests.circuits.formula import GRAPH, LAST, LEFT, RIGHT, Formula, circuit, either

BARE = {"n_random": 0, "completeness_sets": 0, "greedy_sets": 0, "members": False}


def test_faithfulness_is_a_ratio_of_means_and_never_clipped():
    formula = Formula(lambda has: -1 + 3 * has(LAST) - has(*LEFT), weights=(1.0, 3.0))
    one = evaluate(circuit(LAST), formula, **BARE)
    # m(C) = 2·2, m(full) = 1·2, m(∅) = -1·2, means over weights of mean 2
    assert one.faithfulness == pytest.approx((4 + 2) / (2 + 2))
    assert one.deviation == pytest.approx(2.0)
    assert formula.runs == 2  # the circuit and its complement
    assert "superfluous" not in repr(one)  # nothing was asked about members, K or chance
    assert "random" not in repr(one)
    assert "incompleteness" not in repr(one)
    # per prompt the ratio is the same here, so the interval has no width
    assert float(one.faithfulness_interval().low) == pytest.approx(1.5)


def test_batch_is_averaged_before_dividing_and_the_interval_resamples_all_three():
    full, empty = torch.tensor([4.0, 2.0, 3.0]), torch.tensor([0.0, 1.9, 0.0])
    values = torch.tensor([0.0, 2.0, 3.0])
    expected = (values.mean() - empty.mean()) / (full.mean() - empty.mean())
    assert float(share(values, full, empty)) == pytest.approx(float(expected))
    found = share_interval(values, full, empty)
    assert found.low < found.mean < found.high
    assert float(share_interval(full, full, empty).low) == pytest.approx(1.0)
    assert torch.isnan(share_interval(values[:1], full[:1], empty[:1]).low)


def test_a_gap_near_zero_is_refused():
    with pytest.raises(GapError, match="too small to divide by"):
        evaluate(circuit(LAST), Formula(lambda has: 5.0), **BARE)


def test_a_circuit_without_its_backup_is_faithful_minimal_and_incomplete():
    own = circuit(*LEFT, LAST, roles={"a0.h0": ("mover",), "m1": ("reader",)})
    found = evaluate(own, Formula(either))
    assert found.faithfulness == 1
    assert found.superfluous() == ()
    assert found.incompleteness == pytest.approx(4.0)
    worst = found.completeness_frame().iloc[0]
    assert (worst["kind"], worst["set"], worst["circuit"], worst["model"]) == (
        "mover",
        "a0.h0",
        0,
        4,
    )


def test_the_greedy_set_finds_the_missing_backup_without_roles():
    found = evaluate(circuit(*LEFT, LAST), Formula(either), completeness_sets=0)
    assert found.kinds == ("none", "greedy")
    assert found.sets[1] == ("a0.h0",)
    assert found.incompleteness == pytest.approx(4.0)


def test_a_complete_circuit_breaks_as_the_model_breaks():
    found = evaluate(circuit(*LEFT, *RIGHT, LAST), Formula(either), completeness_sets=20)
    assert found.incompleteness == 0


def test_minimality_needs_a_set_K_where_two_nodes_do_the_same():
    roles = {"a0.h0": ("mover",), "a0.h1": ("mover",)}
    both = circuit(*LEFT, *RIGHT, LAST)
    alone = evaluate(both, Formula(either), minimality_sets=0)
    assert set(alone.superfluous()) == {"a0.h0", "a0.h1"}  # K = ∅: each stands in for the other
    named = evaluate(replace(both, roles=roles), Formula(either), minimality_sets=0)
    assert named.superfluous() == ()
    frame = named.minimality_frame().set_index("member")
    assert frame.loc["a0.h0", "set"] == "a0.h1"
    assert frame.loc["a0.h0", "effect"] == -4
    assert frame.loc["m1", "share"] == 1.0


def test_a_node_that_does_nothing_is_superfluous_and_so_are_its_edges():
    idle = ("embed->a1.h1<v>", "a1.h1->logits")
    found = evaluate(circuit(*LEFT, LAST, *idle), Formula(either))
    assert found.superfluous() == ("a1.h1",)
    assert set(found.superfluous("edges")) == set(idle)


def test_what_non_members_do_by_chance_is_the_bar():
    def noisy(has):
        return 4 * has(*LEFT, LAST) + 0.2 * sum(has(f"a1.h{h}->logits") for h in (0, 1))

    low = evaluate(
        circuit(*LEFT, LAST, "a1.h0->logits"), Formula(noisy), n_chance=50, threshold=0.0
    )
    assert low.chance_level() == pytest.approx(0.2, abs=1e-5)  # a1.h1, put in
    assert low.superfluous() == ("a1.h0",)
    assert low.chance_level("edges") == pytest.approx(0.0, abs=1e-5)  # one edge of forty


def test_removing_nodes_removes_every_edge_at_them():
    mask = touching(GRAPH, ["a0.h1"])
    expected = [e for e in GRAPH.edges if "a0.h1" in (split_edge(e)[0], node_of(split_edge(e)[1]))]
    assert GRAPH.names(mask) == tuple(expected)
    assert "a0.h1->a1.h0<k>" in expected
    assert nodes_of(GRAPH, GRAPH.mask(LEFT)) == ("embed", "a0.h0", "m1")
    placed = Graph(1, 1, pos_embed=False, positions=("S", "other"))
    assert touching(placed, ["m0"]).shape == placed.full.shape
    with pytest.raises(CircuitError, match="no node 'a7.h7'"):
        touching(GRAPH, ["a7.h7"])


def test_the_same_edges_are_run_once():
    formula = Formula(either)
    runs = Runs(formula)
    mask = GRAPH.mask(LEFT)
    assert torch.equal(runs([mask, mask, GRAPH.full]), runs([mask, mask, GRAPH.full]))
    assert formula.runs == runs.count == 1


def reaches(edges):
    """Nodes from which the logits are reached, and nodes that an embedding reaches."""
    pairs = [(split_edge(e)[0], node_of(split_edge(e)[1])) for e in edges]
    back, fed = {"logits"}, {"embed", "pos_embed"}
    for _ in pairs:
        back |= {s for s, d in pairs if d in back}
        fed |= {d for s, d in pairs if s in fed}
    return back, fed


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 20, 46])
def test_random_connected_circuits_hang_together(n):
    drawn = random_connected(GRAPH, n, n_circuits=12, seed=0)
    for edges in drawn:
        assert len(set(edges)) == n
        assert set(edges) <= set(GRAPH.edges)
        back, fed = reaches(edges)
        assert all(split_edge(e)[0] in fed and node_of(split_edge(e)[1]) in back for e in edges)
    assert drawn == random_connected(GRAPH, n, n_circuits=12, seed=0)
    if 1 < n < 40:
        assert len({frozenset(one) for one in drawn}) > 1
    with pytest.raises(CircuitError, match="n=47 edges"):
        random_connected(GRAPH, 47, n_circuits=1, seed=0)


def test_random_edges_do_not_hang_together_and_chance_is_told():
    drawn = random_edges(GRAPH, 5, n_circuits=20, seed=0)
    assert sum(reaches(one)[0] > {"logits"} for one in drawn) > 0
    found = evaluate(circuit(*LEFT, LAST), Formula(either), n_random=19)
    assert found.p_value() == pytest.approx(1 / 20)  # no random circuit does it
    nothing = evaluate(circuit("embed->logits"), Formula(either), n_random=19)
    assert nothing.p_value() == 1.0


def test_sets_are_those_of_their_seed():
    assert random_sets("abcdef", 5, seed=1) == random_sets("abcdef", 5, seed=1)
    assert random_sets("abcdef", 5, seed=1) != random_sets("abcdef", 5, seed=2)
    one, two = (evaluate(circuit(*LEFT, LAST), Formula(either), seed=3) for _ in range(2))
    assert torch.equal(one.random_connected, two.random_connected)
    assert one.sets == two.sets


def test_an_empty_circuit_is_zero():
    found = evaluate(circuit(), Formula(either))
    assert found.faithfulness == 0
    assert found.nodes == ()
    assert len(found.to_frame()) > 8


def test_kl_is_a_share_of_the_gap():
    formula = Formula(lambda has: 2.0 - 2.0 * has(LAST))
    found = evaluate(circuit(LAST), formula, metric="kl")
    assert found.scale == pytest.approx(2.0)
    assert found.faithfulness == 1


def test_it_warns_of_discovery_prompts_and_of_other_weights():
    formula = Formula(either)
    seen = circuit(*LEFT, LAST, prompts={"hash": formula.prompts.hash})
    with pytest.warns(UserWarning, match="2 of these 2 prompts are among those"):
        found = evaluate(seen, formula, **BARE)
    assert "2 of the 2 prompts" in found.notes[0]
    rows = list(row_hashes(formula.prompts))[1:]
    with pytest.warns(UserWarning, match="1 of these 2 prompts"):
        evaluate(circuit(LAST, prompts={"hash": "0", "rows": rows}), formula, **BARE)
    with pytest.warns(UserWarning, match="found in other weights"):
        evaluate(circuit(LAST, weights_hash="b" * 64), formula, **BARE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(circuit(LAST, prompts={"hash": "0"}, weights_hash="a" * 64), formula, **BARE)


def test_another_shape_is_refused():
    other = Circuit("big", {"embed->logits"}, Graph(3, 2, pos_embed=False).shape, model="big")
    with pytest.raises(CircuitError, match="does not fit toy: n_layers 3 and 2"):
        evaluate(other, Formula(either), **BARE)
    with pytest.raises(CircuitError, match="no prompts to run"):
        evaluate(circuit(LAST), Formula(either).model)
    with pytest.raises(CircuitError, match="prompts of its own"):
        evaluate(circuit(LAST), Formula(either), Formula(either).prompts)


def test_it_is_saved_whole(tmp_path):
    own = circuit(*LEFT, LAST, roles={"a0.h0": ("mover",)})
    found = evaluate(own, Formula(either, weights=(1.0, 2.0, 4.0)))
    again = CircuitEvaluation.load(found.save(tmp_path / "one.safetensors"))
    assert again.to_frame().equals(found.to_frame())
    assert repr(again) == repr(found)
    for of in ("nodes", "edges"):
        assert again.minimality_frame(of).equals(found.minimality_frame(of))
    assert again.completeness_frame().equals(found.completeness_frame())
    assert found.plot().axes[0].get_title() == "faithful?"


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_the_true_circuit_of_a_compiled_model(ablation):
    """Found faithful, complete and minimal, edge by edge; one edge less is none of it."""
    case = load_case("xproportion")
    model, edges = case.model(), case.edges(ablation)
    setting = Setting.of(model, case.prompts(), metric=case.as_metric("linear"), ablation=ablation)
    own = Circuit("true", edges, setting.graph.shape, metric="linear", ablation=ablation)
    found = evaluate(own, setting, n_random=9, threshold=1e-4, n_chance=0, completeness_sets=4)
    assert found.faithfulness == pytest.approx(1, abs=1e-5)
    assert found.superfluous("edges") == ()
    assert float(found.minimality("edges").min()) > 1e-3
    less = evaluate(replace(own, edges=edges - {"a1.h0->logits"}), setting, **BARE)
    assert abs(less.faithfulness) < 0.9
