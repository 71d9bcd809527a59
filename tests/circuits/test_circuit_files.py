"""Circuits as files: round trips, the schema, what shipped circuits say, and what is refused."""

import json
import warnings

import jsonschema
import pytest
import torch

import interp
from interp.circuits.acquaintance import check_fits
from interp.circuits.circuit import Circuit
from interp.circuits.files import rendered, shipped
from interp.errors import CircuitError
from interp.graph import Graph
from interp.paths import circuits_dir
from interp.results import Provenance
from tests.circuits.test_circuit import SHAPE, A, scores_of

SCHEMA = json.loads((circuits_dir() / "schema.json").read_text(encoding="utf-8"))
FULL = Circuit(
    "full", A.edges, SHAPE, model="small", weights_hash="0" * 64, metric="kl", ablation="mean",
    prompts={"task": "ioi", "n": 4, "seed": 0}, method={"verb": "discover", "taus": (0.1, 0.2)},
    roles=A.roles, source="interp discover …", measured={"faithfulness": {"value": 0.9, "low": None}},
    provenance=Provenance({"verb": "discover", "by": {"n": [1]}}, "small", "0" * 64, None, 3, {"python": "3"}),
)  # fmt: skip


def valid(content):
    jsonschema.Draft202012Validator(SCHEMA).validate(content)


# -- round trips -----------------------------------------------------------------------------


@pytest.mark.parametrize("circuit", [A, FULL, A - A], ids=["plain", "full", "empty"])
def test_what_is_written_is_read_back(circuit, tmp_path):
    path = circuit.save(tmp_path / "new" / "c.json")
    again = Circuit.load(path)
    assert vars(again).keys() >= {"name", "scores"}
    for field in circuit.__dataclass_fields__:
        assert getattr(again, field) == getattr(circuit, field), field
    valid(json.loads(path.read_text(encoding="utf-8")))
    assert again.save(tmp_path / "d.json").read_bytes() == path.read_bytes()


def test_a_file_has_one_edge_a_line_in_the_graphs_order():
    lines = rendered(FULL).splitlines()
    assert [line.strip().strip('",') for line in lines[-5:-2]] == list(FULL)
    one_more = rendered(Circuit("full", FULL.edges | {"m0->m1"}, SHAPE))
    without = rendered(Circuit("full", FULL.edges, SHAPE))
    assert len(set(one_more.splitlines()) - set(without.splitlines())) == 1


def test_positions_are_written_in_the_shape(tmp_path):
    at = Circuit("c", ["m0->logits@END"], SHAPE, positions=("END", "other"))
    path = at.save(tmp_path / "c.json")
    valid(json.loads(path.read_text(encoding="utf-8")))
    assert Circuit.load(path).positions == ("END", "other")


def test_scores_stand_beside_the_file(tmp_path):
    scores = scores_of(A.graph)
    path = Circuit("c", A.edges, SHAPE, scores=scores).save(tmp_path / "c.json")
    assert {one.name for one in tmp_path.iterdir()} == {"c.json", "c.safetensors"}
    valid(json.loads(path.read_text(encoding="utf-8")))
    torch.testing.assert_close(Circuit.load(path).scores.values, scores.values, equal_nan=True)
    A.save(path)  # without scores: those beside it are no longer its own
    assert Circuit.load(path).scores is None
    Circuit("c", A.edges, SHAPE, scores=scores).save(path)
    (tmp_path / "c.safetensors").unlink()
    with pytest.raises(CircuitError, match="its 'scores' cannot be read: there is no file"):
        Circuit.load(path)


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "results"}, "'kind' is 'results', expected 'circuit'"),
        ({"version": 9}, "'version' is 9, expected 1"),
        ({"edgse": []}, "no field 'edgse' is known; nearest: 'edges'"),
        ({"edges": None}, "the field 'edges' is missing, expected a list of edges"),
        ({"edges": "m0->logits"}, "'edges' is 'm0->logits', expected a list"),
        ({"edges": ["m0->logits", "m0->m1", "m0 -> logits"]}, "'edges' has 'm0->logits' twice"),
        ({"edges": ["m0->m7"]}, "circuit 'full': 'm0->m7' is not an edge"),
        ({"roles": {"m0": "mover"}, "weights_hash": 3}, "'weights_hash' is 3, expected a sha256"),
        ({"roles": {"m9": ["mover"]}}, "names 'm9', which is no node"),
        ({"shape": {"n_layers": 3, "n_haeds": 2}}, "is of no graph"),
        ({"shape": {"n_layers": 1, "n_heads": 2}}, "'a0.h1->m1' is not an edge"),
        ({"scores": "../c.safetensors"}, "expected the name of a file beside it"),
        ({"provenance": {"model": "small"}}, "'provenance' has .*'model'.*expected"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(change, said, tmp_path):
    path = tmp_path / "c.json"
    content = {**json.loads(rendered(FULL)), **change}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None or k != "edges"}))
    with pytest.raises(CircuitError, match=r"c\.json: .*" + said):
        Circuit.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (rendered(FULL)[:-20], "line .*, is not JSON"),
        ("[1, 2]", "holds \\[1, 2\\], expected an object"),
        ('{"kind": "circuit", "kind": "circuit"}', "'kind' stands 2 times"),
        ('{"cfg": {}, "nodes": {}, "edges": {}}', "read it with Circuit.from_mib"),
        ("\udce4", "cannot be read"),
    ],
)
def test_a_broken_file_is_told_from_a_missing_one(text, said, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CircuitError, match=said):
        Circuit.load(path)


def test_a_missing_file_names_the_shipped_circuits(tmp_path):
    with pytest.raises(CircuitError, match="nearest of those shipped: 'ioi-gpt2'"):
        Circuit.load("ioi-gtp2")
    with pytest.raises(CircuitError, match="there is no circuit file"):
        Circuit.load(tmp_path / "ioi-gpt2")
    with pytest.raises(CircuitError, match="does not end in '.json'"):
        A.save(tmp_path / "a.txt")


# -- shipped ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
def test_each_shipped_circuit_is_valid_and_in_its_one_form(name):
    path = circuits_dir() / f"{name}.json"
    text = path.read_text(encoding="utf-8")
    valid(json.loads(text))
    circuit = Circuit.load(name)
    assert circuit.name == name
    assert circuit.source
    scores = json.loads(text)["scores"]
    assert rendered(circuit, scores=scores) == text


def test_the_schema_refuses_what_it_should():
    content = json.loads(rendered(FULL))
    for change in ({"edges": ["m0"]}, {"ablation": "noise"}, {"more": 1}, {"roles": {"x": ["a"]}}):
        with pytest.raises(jsonschema.ValidationError):
            valid({**content, **change})


def arrows_of(circuit):
    """Every edge that the file's arrows between classes of nodes stand for."""
    classes = {role: circuit.with_role(role) for own in circuit.roles.values() for role in own}
    classes["embeddings"] = tuple(x for x in ("embed", "pos_embed") if x in circuit.graph.sources)
    arrows = {**circuit.method["arrows"], **circuit.method.get("arrows with MLPs", {})}
    for arrow, channels in arrows.items():
        froms, to = arrow.split(" -> ")
        for source in classes.get(froms, (froms,)):
            for dest in classes.get(to, (to,)):
                yield from (
                    (f"{source}->{dest}<{c}>" for c in channels or "")
                    if channels
                    else (f"{source}->{dest}",)
                )


@pytest.mark.parametrize("name", ["ioi-gpt2", "greater-than-gpt2", "induction-redwood_attn_2l"])
def test_a_published_circuit_is_what_its_arrows_say(name):
    circuit = Circuit.load(name)
    drawn = set(arrows_of(circuit)) & set(circuit.graph.edges)
    assert drawn == circuit.edges
    assert not circuit.dangling
    assert circuit.weights_hash is None
    assert circuit.measured == {}


def test_the_published_circuits_have_their_papers_nodes():
    ioi = Circuit.load("ioi-gpt2")
    heads = [node for node in ioi.nodes if node.startswith("a")]
    assert len(heads) == 26
    assert ioi.with_role("name mover") == ("a9.h6", "a9.h9", "a10.h0")
    assert ioi.with_role("S-inhibition") == ("a7.h3", "a7.h9", "a8.h6", "a8.h10")
    assert "a8.h6->a9.h9<q>" in ioi
    assert "a8.h6->a9.h9<v>" not in ioi
    later = Circuit.load("greater-than-gpt2")
    assert {"a5.h1", "a5.h5", "a6.h9", "a7.h10", "a8.h8", "a8.h11", "a9.h1"} == set(
        later.with_role("start year head")
    )
    assert "a9.h1->m8" not in later.graph.edges
    assert "a9.h1->m9" in later


# -- models ----------------------------------------------------------------------------------


def test_a_circuit_fits_the_model_whose_graph_it_is_of():
    model = interp.load("demo")
    shape = Graph.of(model).shape
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_fits(Circuit("c", (), shape), model) == "unknown"
        own = Circuit("c", (), shape, weights_hash=model.weights_hash)
        assert check_fits(own, model) == "same"
    with pytest.warns(UserWarning, match="was found in other weights .demo"):
        assert (
            check_fits(own.__class__(**{**vars_of(own), "model": "demo"}), model.random_twin())
            == "other"
        )
    with pytest.raises(CircuitError, match="does not fit demo: n_layers 12 and 4"):
        check_fits(Circuit.load("ioi-gpt2"), model)


def vars_of(circuit):
    return {field: getattr(circuit, field) for field in circuit.__dataclass_fields__}


def test_the_folder_of_circuits_is_found_or_the_error_says_where_it_was_looked_for(monkeypatch):
    from interp import paths

    assert (circuits_dir() / "ioi-gpt2.json").is_file()
    monkeypatch.setattr(paths, "PACKAGE", paths.PACKAGE / "nowhere" / "interp")
    with pytest.raises(paths.DataNotFoundError, match=r"looked for 'schema\.json' in .*circuits"):
        circuits_dir()
