"""Circuits as sets of edges: checks, algebra, parts, tables."""

import itertools

import pytest
import torch

import interp
from interp.attribution.edges import EdgeScores
from interp.circuits.circuit import Circuit
from interp.errors import CircuitError
from interp.graph import Graph, Setting
from interp.results import Provenance

SHAPE = Graph(3, 2).shape
A = Circuit(
    "a", {"embed->a0.h1<v>", "a0.h1->m1", "m1->logits"}, SHAPE, model="small", metric="logit_diff",
    ablation="resample", roles={"a0.h1": "mover", "m1": ["readout", "mover"], "m2": "idle"},
)  # fmt: skip
B = Circuit(
    "b", ["a0.h1->m1", "m1->a2.h0<k>"], SHAPE, model="small", metric="kl", roles={"m1": "other"}
)


def scores_of(graph, values=None):
    made = torch.full(graph.full.shape, torch.nan)
    made[graph.index] = torch.arange(len(graph.edges)).float() if values is None else values
    return EdgeScores(
        made, None, graph.sources, graph.dests, graph.positions, "logit_diff", "logits", "eap",
        "resample", "noise", torch.ones(2), torch.zeros(2), graph.shape,
        Provenance({"verb": "attribute"}, "small", "0" * 64, None, None, {}),
    )  # fmt: skip


# -- what it is ------------------------------------------------------------------------------


def test_edges_and_nodes_stand_in_the_order_of_the_graph():
    assert A.ordered == ("embed->a0.h1<v>", "a0.h1->m1", "m1->logits") == tuple(A)
    assert A.nodes == ("embed", "a0.h1", "m1", "logits")
    assert (len(A), A.size, A.density) == (3, 3, 3 / len(A.graph.edges))
    assert A.graph.shape == SHAPE
    assert A.roles == {"a0.h1": ("mover",), "m1": ("readout", "mover"), "m2": ("idle",)}
    assert A.with_role("mover") == ("a0.h1", "m1")


def test_edges_are_kept_in_the_graphs_spelling():
    assert Circuit("c", [" m0 -> logits"], SHAPE).edges == {"m0->logits"}


def test_a_partial_shape_is_the_whole_shape():
    assert Circuit("c", (), {"n_layers": 3, "n_heads": 2}) == Circuit("d", (), SHAPE)


def test_positions_stand_in_the_shape_and_beside_it():
    at = Circuit("c", ["m0->logits@END"], SHAPE, positions=("END", "other"))
    assert at.shape["positions"] == ["END", "other"]
    again = Circuit("c", ["m0->logits@END"], at.shape)
    assert again == at
    assert again.positions == ("END", "other")
    assert again.nodes == ("m0", "logits")
    with pytest.raises(CircuitError, match="expected the same in both"):
        Circuit("c", (), at.shape, positions=("S2", "other"))


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (["m0->m9"], "'m0->m9' is not an edge of this graph; nearest: 'm0->m"),
        (["m1->a0.h0<q>"], "it comes later or beside it"),
        (["m0->logits@S2"], "nearest"),
        (["m0"], "expected 'm0->a1.h3<q>'"),
        ([3], "3 is not the name of an edge"),
        ("m0->logits", "expected several"),
        (7, "expected several"),
    ],
)
@pytest.mark.bad_input
def test_an_edge_that_the_graph_has_not_is_refused_with_the_nearest(edges, said):
    with pytest.raises(CircuitError, match="'broken'.*" + said):
        Circuit("broken", edges, SHAPE)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": " "}, "needs a name"),
        ({"shape": {"layers": 2}}, "is of no graph"),
        ({"shape": 3}, "give Graph.of"),
        ({"roles": {"a0.h7": "mover"}}, "names 'a0.h7', which is no node of its graph; nearest"),
        ({"roles": ["mover"]}, "expected nodes with their roles"),
        ({"roles": {"m0": [1]}}, "expected text or a list"),
        ({"measured": {"f": float("nan")}}, "measured of circuit.*Write None"),
        ({"prompts": {"task": torch.ones(1)}}, "prompts of circuit.*cannot be written as JSON"),
        ({"method": "acdc"}, "expected a mapping"),
    ],
)
def test_what_a_circuit_cannot_hold_is_refused(change, said):
    with pytest.raises(CircuitError, match=said):
        Circuit(**{"name": "broken", "edges": (), "shape": SHAPE, **change})


def test_scores_of_another_graph_are_refused():
    assert Circuit("c", A.edges, SHAPE, scores=scores_of(A.graph)).scores is not None
    with pytest.raises(CircuitError, match="scores given to circuit 'c' have 14 sources"):
        Circuit("c", A.edges, SHAPE, scores=scores_of(Graph(4, 2)))


def test_containing_is_asked_of_edges_and_of_nodes():
    assert "m1->logits" in A
    assert "m1" in A
    assert "m2" not in A
    assert "m2->logits" not in A
    assert "no such thing" not in A


# -- as a set --------------------------------------------------------------------------------


def test_sets_are_pythons_sets_of_edges():
    for one, other in itertools.product((A, B), repeat=2):
        assert (one | other).edges == one.edges | other.edges
        assert (one & other).edges == one.edges & other.edges
        assert (one - other).edges == one.edges - other.edges
        assert (one ^ other).edges == one.edges ^ other.edges
        for compare in ("__le__", "__lt__", "__ge__", "__gt__"):
            assert getattr(one, compare)(other) == getattr(one.edges, compare)(other.edges)
        assert one & other <= one <= one | other
    assert A.jaccard(B) == 1 / 4
    assert A.jaccard(A) == (A - A).jaccard(B - B) == 1
    assert (A - A).size == 0


def test_equality_is_of_edges_and_graph_alone():
    same = Circuit("another name", sorted(A.edges), SHAPE, measured={"faithfulness": 0.9})
    assert same == A
    assert hash(same) == hash(A)
    assert len({same, A, B}) == 2
    assert Circuit("a", A.edges, {**SHAPE, "n_heads": 3}) != A
    assert A.edges != A


def test_combining_keeps_what_both_agree_on():
    both = A | B
    assert (both.name, both.model, both.metric, both.ablation) == ("a | b", "small", "", "")
    assert both.method == {"operation": "|", "circuits": ["a", "b"]}
    assert both.roles == {"a0.h1": ("mover",), "m1": ("readout", "mover", "other")}  # m2 is in none
    assert (A & B).roles == {"a0.h1": ("mover",), "m1": ("readout", "mover", "other")}


def test_circuits_of_different_graphs_do_not_mix():
    other = Circuit("c", A.edges, {**SHAPE, "n_heads": 3})
    for mix in (lambda: A | other, lambda: other <= A, lambda: A.jaccard(other)):
        with pytest.raises(CircuitError, match="of different graphs, n_heads . and ."):
            mix()


@pytest.mark.bad_input
def test_a_circuit_does_not_mix_with_a_bare_set():
    with pytest.raises(CircuitError, match="goes with another circuit, got frozenset"):
        A & A.edges


# -- parts -----------------------------------------------------------------------------------


def test_a_circuit_of_nodes_has_every_edge_among_them():
    made = Circuit.of_nodes("c", ["a0.h0", "m1", "logits"], SHAPE, model="small")
    assert made.edges == {"a0.h0->m1", "a0.h0->logits", "m1->logits"}
    assert made.model == "small"
    everything = Circuit.of_nodes("all", A.graph.nodes, SHAPE)
    assert everything.edges == set(A.graph.edges)
    assert everything.density == 1
    with pytest.raises(CircuitError, match=r"names 'm7', which is no node.*'m"):
        Circuit.of_nodes("c", ["m7"], SHAPE)


def test_a_part_by_roles():
    assert A.sub(roles="mover").edges == {"a0.h1->m1"}
    assert A.sub(roles="mover").name == "a (part)"
    assert A.sub(roles=["readout"], nodes=["logits"]).edges == {"m1->logits"}
    with pytest.raises(CircuitError, match="has the role 'mooover'; nearest: 'mover'"):
        A.sub(roles="mooover")


def test_pruning_makes_a_new_circuit_of_the_paths():
    loose = {"m2->logits", "embed->m2", "m0->m1", "embed->a1.h0<q>", "a0.h0->a1.h0<v>"}
    whole = Circuit(
        "c", A.edges | loose, SHAPE, roles={"a1.h0": "nothing reads it"}, measured={"f": 1}
    )
    before = whole.edges
    cut = whole.pruned()
    assert cut.edges == A.edges | {"m2->logits", "embed->m2"}
    assert whole.edges is before
    assert set(whole.dangling) == whole.edges - cut.edges
    assert cut.roles == {}
    assert cut.measured == {}
    assert (cut.name, whole.name) == ("c (pruned)", "c")
    assert cut.pruned() is cut
    assert cut.dangling == ()


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_what_pruning_does_under_each_ablation(model, ablation):
    """Edges that nothing reads never count; edges that nothing reaches count under zero ablation."""
    pairs = interp.prompts.ioi(model, 4, 0)
    setting = Setting.of(model, pairs, ablation=ablation)
    core = Circuit.of_nodes(
        "core", ["embed", "a0.h0", "a2.h1", "m3", "logits"], setting.graph.shape
    )
    unread = Circuit("unread", core.edges | {"embed->m1", "m1->a3.h0<v>"}, core.shape)
    unreached = Circuit("unreached", core.edges | {"m1->m2", "m2->logits"}, core.shape)
    assert unread.pruned() == unreached.pruned() == core
    kept = torch.stack([setting.graph.mask(one.edges) for one in (core, unread, unreached)])
    base, never_read, never_reached = setting.scores(kept).double()
    torch.testing.assert_close(never_read, base, atol=1e-4, rtol=0)
    change = (never_reached - base).abs().max()
    assert change < 1e-4 if ablation == "resample" else change > 0.01


def test_roles_are_replaced_in_a_new_circuit():
    named = A.with_roles({"m1": ["answers"]})
    assert named.roles == {"m1": ("answers",)}
    assert named == A
    assert A.roles["m1"] == ("readout", "mover")


# -- tables ----------------------------------------------------------------------------------


def test_text_says_what_it_is():
    assert repr(A) == (
        f"Circuit('a': 3 of {len(A.graph.edges)} edges (2.5%), 4 nodes, 3 roles; "
        "small, logit_diff, resample ablation)"
    )
    assert A.summary() == {
        "mover": "a0.h1, m1", "readout": "m1", "idle": "m2", "no role": "embed, logits",
    }  # fmt: skip
    shown = Circuit("c", A.edges, SHAPE, source="a paper", measured={
        "f": {"value": 0.123456}, "removal": {edge: i / 7 for i, edge in enumerate(A.graph.edges)}},
        prompts={"rows": ["ab"] * 9}).show()  # fmt: skip
    assert "source: a paper" in shown
    assert "measured:\n  f:\n    value: 0.1235\n" in shown
    assert f"  removal: 122 numbers, largest {A.graph.edges[-1]} 17.29, " in shown
    assert "  rows: 9 of them" in shown


def test_a_table_has_a_row_for_each_edge():
    scored = Circuit("a", A.edges, SHAPE, roles=A.roles, scores=scores_of(A.graph))
    frame = scored.to_frame()
    assert frame["edge"].tolist() == list(A)
    assert frame["channel"].tolist() == ["v", "", ""]
    assert frame["dest_roles"].tolist() == ["mover", "readout, mover", ""]
    assert frame["score"].tolist() == [float(A.graph.number(edge)) for edge in A]
    at = Circuit("c", ["m0->logits@END"], SHAPE, positions=("END", "other")).to_frame()
    assert at["position"].tolist() == ["END"]
    assert (A - A).to_frame().empty


def test_networkx_has_the_same_nodes_and_edges():
    import networkx as nx

    more = Circuit(
        "c", A.edges | {"embed->a0.h1<q>"}, SHAPE, roles=A.roles, scores=scores_of(A.graph)
    )
    made = more.to_networkx()
    assert list(made.nodes) == list(more.nodes)
    assert {key for _, _, key in made.edges(keys=True)} == more.edges
    assert made.nodes["a0.h1"] == {"kind": "head", "layer": 0, "roles": ("mover",)}
    assert made.edges["embed", "a0.h1", "embed->a0.h1<q>"]["channel"] == "q"
    assert made.edges["m1", "logits", "m1->logits"]["score"] == more.graph.number("m1->logits")
    assert nx.is_directed_acyclic_graph(made)


# -- measured and drawn ----------------------------------------------------------------------


def test_its_verbs_are_those_of_evaluation_and_drawing(model):
    from interp.circuits.drawing import draw, page
    from interp.circuits.evaluation import evaluate

    pairs = interp.prompts.ioi(model, 4, 0)
    shape = Graph.of(model).shape
    circuit = Circuit.of_nodes(
        "c", ["embed", "a1.h0", "m3", "logits"], shape, metric="logit_diff", ablation="resample"
    )
    few = {"n_random": 2, "completeness_sets": 1, "greedy_sets": 0, "members": False}
    mine, same = circuit.evaluate(model, pairs, **few), evaluate(circuit, model, pairs, **few)
    torch.testing.assert_close(mine.kept, same.kept)
    drawn = (circuit.draw(title="t"), draw(circuit, title="t"))
    assert drawn[0].svg == drawn[1].svg
    assert type(circuit.view()) is type(page(circuit))
