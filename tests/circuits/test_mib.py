"""Files of EAP-IG and MIB, as those tools write them (hannamw/EAP-IG, ``Graph.to_json``)."""

import json
import math

import pytest
import torch

from interp.circuits.circuit import Circuit
from interp.circuits.mib import mib_scores
from interp.errors import CircuitError
from interp.graph import Graph
from tests.circuits.test_circuit import scores_of


def theirs(n_layers=2, n_heads=2, *, parallel=False, chosen=(), scores=True, old=False):
    """A graph as EAP-IG builds it, node by node, with some edges in it."""
    stream, nodes, edges = ["input"], ["input"], []
    for layer in range(n_layers):
        heads = [f"a{layer}.h{h}" for h in range(n_heads)]
        edges += [f"{s}->{h}<{c}>" for s in stream for h in heads for c in "qkv"]
        stream += [] if parallel else heads
        edges += [f"{s}->m{layer}" for s in stream]
        stream += [*heads, f"m{layer}"] if parallel else [f"m{layer}"]
        nodes += [*heads, f"m{layer}"]
    edges += [f"{s}->logits" for s in stream]
    reached = {end.split("<")[0] for edge in chosen for end in edge.split("->")} | {"logits"}
    return {
        "cfg": {
            "n_layers": n_layers,
            "n_heads": n_heads,
            "parallel_attn_mlp": parallel,
            "d_model": 8,
        },
        "nodes": {
            n: n in reached if old else {"in_graph": n in reached} for n in (*nodes, "logits")
        },
        "edges": {
            e: {"score": (i / 7 if scores else None), "in_graph": e in chosen}
            for i, e in enumerate(edges)
        },
    }


CHOSEN = ("input->a0.h1<v>", "a0.h1->m1", "m1->logits", "input->logits")
OURS = {"embed->a0.h1<v>", "a0.h1->m1", "m1->logits", "embed->logits"}
POSITIONS = {f"pos_embed->{dest}" for dest in
             ("a0.h1<q>", "a0.h1<k>", "a0.h1<v>", "m1", "logits")}  # fmt: skip


def written(tmp_path, content):
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("parallel", [False, True], ids=["serial", "parallel"])
def test_a_circuit_is_read_with_its_position_embeddings_kept(tmp_path, old, parallel):
    path = written(tmp_path, theirs(chosen=CHOSEN, old=old, parallel=parallel))
    circuit = Circuit.from_mib(path, pos_embed=True, model="small", metric="kl")
    assert circuit.edges == OURS | POSITIONS
    assert (circuit.name, circuit.model, circuit.metric) == ("theirs", "small", "kl")
    assert circuit.graph.parallel is parallel
    rotary = Circuit.from_mib(path, pos_embed=False, name="mine")
    assert rotary.edges == OURS
    assert rotary.name == "mine"


@pytest.mark.parametrize("parallel", [False, True], ids=["serial", "parallel"])
@pytest.mark.parametrize("pos_embed", [False, True], ids=["rotary", "absolute"])
def test_there_and_back(tmp_path, parallel, pos_embed):
    content = theirs(chosen=CHOSEN, parallel=parallel)
    path = written(tmp_path, content)
    circuit = Circuit.from_mib(path, pos_embed=pos_embed)
    scores = mib_scores(path, pos_embed=pos_embed)
    again = circuit.to_mib(tmp_path / "ours.json", d_model=8, scores=scores)
    back = json.loads(again.read_text())
    assert back["cfg"] == content["cfg"]
    assert back["nodes"] == content["nodes"]
    assert back["edges"].keys() == content["edges"].keys()
    for edge, told in content["edges"].items():
        assert back["edges"][edge]["in_graph"] == told["in_graph"]
        assert back["edges"][edge]["score"] == pytest.approx(told["score"], rel=1e-6)
    assert Circuit.from_mib(again, pos_embed=pos_embed) == circuit


def test_scores_are_read_by_edge_and_negated_on_request(tmp_path):
    path = written(tmp_path, theirs())
    graph = Graph(2, 2)
    values = mib_scores(path, pos_embed=True)
    content = theirs()["edges"]
    at = graph.sources.index("a0.h1"), graph.dests.index("m1")
    assert float(values[at]) == pytest.approx(content["a0.h1->m1"]["score"])
    assert values[graph.sources.index("pos_embed")].isnan().all()
    assert values[~graph.real].isnan().all()
    assert int((~values.isnan()).sum()) == len(content)
    other = mib_scores(path, pos_embed=True, negate=True)
    torch.testing.assert_close(other, -values, equal_nan=True)
    assert mib_scores(written(tmp_path, theirs(scores=False)), pos_embed=True).isnan().all()


def test_scores_of_ours_are_written_with_either_sign(tmp_path):
    graph = Graph(2, 2, pos_embed=False)
    own = Circuit("c", OURS, graph.shape, scores=scores_of(graph))
    for negate in (False, True):
        path = own.to_mib(tmp_path / "c.json", d_model=8, negate=negate)
        edges = json.loads(path.read_text())["edges"]
        for edge in graph.edges:
            name = edge.replace("embed->", "input->", 1)
            assert edges[name]["score"] == graph.number(edge) * (-1 if negate else 1)


def test_without_scores_a_threshold_gives_the_circuit_back(tmp_path):
    graph = Graph(2, 2, pos_embed=False)
    path = Circuit("c", OURS, graph.shape).to_mib(tmp_path / "c.json", d_model=8)
    edges = json.loads(path.read_text())["edges"]
    assert {name for name, told in edges.items() if told["score"] > 0.5} == set(CHOSEN)
    assert all(math.isfinite(told["score"]) for told in edges.values())


def test_an_edge_counts_only_with_its_nodes(tmp_path):
    content = theirs(chosen=CHOSEN)
    content["nodes"]["m1"]["in_graph"] = False
    circuit = Circuit.from_mib(written(tmp_path, content), pos_embed=False)
    assert circuit.edges == {"embed->a0.h1<v>", "embed->logits"}


def test_a_circuit_that_ablates_positions_is_written_with_a_warning(tmp_path):
    partial = Circuit("c", {*OURS, "pos_embed->logits"}, Graph(2, 2).shape)
    with pytest.warns(UserWarning, match="ablates 4 edges of 'pos_embed'"):
        path = partial.to_mib(tmp_path / "c.json", d_model=8)
    assert Circuit.from_mib(path, pos_embed=True).edges == OURS | POSITIONS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cfg": None}, "'cfg' is missing or no object"),
        ({"cfg": {"n_layers": 2}}, "'cfg' has no number 'n_heads'"),
        ({"nodes": {"m0": {"in_graph": True, "neurons": [True]}}}, "parts of nodes"),
        ({"nodes": {"m0": {}}}, "'m0' has {}, expected"),
        ({"edges": {"input->m7": {"in_graph": True}}}, "'edges' does not fit its 'cfg'"),
        ({"edges": {"pos_embed->m0": {"in_graph": True}}}, "'input' is one node"),
        ({"edges": {"input->m0": {"in_graph": "yes"}}}, "expected {'in_graph': true or false}"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, said):
    path = written(tmp_path, {**theirs(chosen=CHOSEN), **change})
    with pytest.raises(CircuitError, match=rf"theirs\.json.*{said}"):
        Circuit.from_mib(path, pos_embed=True)


def test_a_pickle_is_refused_unread(tmp_path):
    with pytest.raises(CircuitError, match=r"pickle.*graph\.to_json"):
        Circuit.from_mib(tmp_path / "graph.pt", pos_embed=True)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"positions": ("END", "other")}, "groups of positions"),
        ({"units": ("m0.n3",)}, "neurons or features"),
        ({"mlps": False}, "no MLPs"),
    ],
)
def test_what_their_files_cannot_say_is_refused(tmp_path, shape, said):
    circuit = Circuit("c", (), Graph(2, 2, pos_embed=False, **shape).shape)
    with pytest.raises(CircuitError, match=rf"has {said}"):
        circuit.to_mib(tmp_path / "c.json", d_model=8)


def test_scores_of_another_shape_are_refused(tmp_path):
    circuit = Circuit("c", OURS, Graph(2, 2, pos_embed=False).shape)
    with pytest.raises(CircuitError, match=r"have shape \(3, 3\), expected \(7, 15\)"):
        circuit.to_mib(tmp_path / "c.json", d_model=8, scores=torch.ones(3, 3))
