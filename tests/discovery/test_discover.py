"""``interp.discover``: known circuits are found, planted ones too, and a random model has none."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import interp
from interp.circuits.acquaintance import row_hashes
from interp.circuits.circuit import Circuit
from interp.discovery.discover import discover
from interp.discovery.methods import METHODS
from interp.errors import GapError, MetricError, PromptError, ResultError, RunError
from interp.models.hooked import from_weights
from interp.models.model import Model
from tests.cases.loading import CASES, load_case

HEADS = {"a0.h0->m0", "a0.h1->m0"}


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", CASES)
def test_acdc_finds_exactly_the_compiled_circuit(name, ablation):
    case = load_case(name)
    circuit = discover(
        case.model(check="none"), case.prompts(), metric=case.as_metric("l2"), ablation=ablation
    )
    assert set(circuit.edges) == case.edges(ablation)


@cache
def gate(kind):
    """A model of one block: heads copy features A and B, and the MLP writes their AND or OR."""
    width = ("A", "B", "C", "D", "OUT")
    place = {name: i for i, name in enumerate(width)}
    d = len(width)

    def matrix(*entries, shape):
        out = torch.zeros(shape, dtype=torch.float64)
        for *index, value in entries:
            out[tuple(place.get(i, i) for i in index)] = value
        return out

    w_out = {"and": [0.0, 1.0], "or": [1.0, -1.0]}[kind]  # of relu(C + D), relu(C + D - 1)
    weights = {
        "embed.W_E": matrix((1, "A", 1), (1, "B", 1), shape=(2, d)),
        "pos_embed.W_pos": torch.zeros(8, d, dtype=torch.float64),
        "blocks.0.attn.W_Q": matrix(shape=(2, d, 1)),
        "blocks.0.attn.W_K": matrix(shape=(2, d, 1)),
        "blocks.0.attn.W_V": matrix((0, "A", 0, 1), (1, "B", 0, 1), shape=(2, d, 1)),
        "blocks.0.attn.W_O": matrix((0, 0, "C", 1), (1, 0, "D", 1), shape=(2, 1, d)),
        "blocks.0.mlp.W_in": matrix(("C", 0, 1), ("D", 0, 1), ("C", 1, 1), ("D", 1, 1), shape=(d, 2)),
        "blocks.0.mlp.b_in": torch.tensor([0.0, -1.0], dtype=torch.float64),
        "blocks.0.mlp.W_out": matrix((0, "OUT", w_out[0]), (1, "OUT", w_out[1]), shape=(2, d)),
        "unembed.W_U": matrix(("OUT", 0, 1), shape=(d, 2)),
    }  # fmt: skip
    fields = {
        "n_layers": 1, "n_heads": 2, "d_model": d, "d_head": 1, "d_mlp": 2, "n_ctx": 8,
        "d_vocab": 2, "d_vocab_out": 2, "act_fn": "relu", "normalization_type": None,
        "attention_dir": "causal", "model_name": kind,
    }  # fmt: skip
    return Model.wrap(from_weights(fields, weights, dtype=torch.float64), None, name=kind)


ON, OFF = torch.tensor([[1]]), torch.tensor([[0]])
ASKED = {"answers": [0], "foils": [1]}


@pytest.mark.parametrize(
    ("kind", "direction", "found"),
    [("and", "noise", HEADS), ("and", "denoise", set()),
     ("or", "noise", set()), ("or", "denoise", HEADS)],
)  # fmt: skip
def test_noise_finds_and_denoise_finds_or(kind, direction, found):
    """The AND needs both heads, so ablating either breaks it; of the OR either alone restores it."""
    circuit = discover(
        gate(kind), ON, OFF, method="exact", threshold=0.5, direction=direction, **ASKED
    )
    assert {edge for edge in circuit.edges if edge.startswith("a0")} == found
    assert "m0->logits" in circuit.edges


def test_acdc_keeps_both_of_an_and_and_one_of_an_or():
    tail = {"m0->logits"}
    paths = {head: {f"embed->{head}<v>", f"{head}->m0"} for head in ("a0.h0", "a0.h1")}
    both = discover(gate("and"), ON, OFF, tau=0.5, **ASKED)
    assert set(both.edges) == tail | paths["a0.h0"] | paths["a0.h1"]
    first = discover(gate("or"), ON, OFF, tau=0.5, **ASKED)
    assert set(first.edges) == tail | paths["a0.h0"]
    other = discover(gate("or"), ON, OFF, tau=0.5, order="earliest", **ASKED)
    assert set(other.edges) == tail | paths["a0.h1"]


@pytest.mark.parametrize("method", ["edge-pruning", "subnetwork-probing"])
def test_gates_find_the_and(method):
    options = {"n": 5} if method == "edge-pruning" else {"penalty": 0.2}
    circuit = discover(gate("and"), ON, OFF, method=method, steps=80, **options, **ASKED)
    assert HEADS | {"m0->logits", "embed->a0.h0<v>", "embed->a0.h1<v>"} <= set(circuit.edges)
    assert circuit.scores.what.startswith("trained gate")
    if method == "edge-pruning":
        assert circuit.size == 5
        assert circuit.scores.of("m0->logits") > 0.5 > circuit.scores.of("embed->logits")


def test_the_circuit_says_where_it_comes_from(tmp_path):
    case = load_case("hist")
    circuit = discover(
        case.model(check="none"), case.prompts(), metric=case.as_metric("l2"), tau=0.02, name="mine"
    )
    assert circuit.name == "mine"
    assert circuit.metric == "l2"
    assert circuit.ablation == "resample"
    assert dict(circuit.method) == {"verb": "discover", "method": "acdc", "tau": 0.02}
    assert circuit.prompts["hash"] == case.prompts().hash
    assert tuple(circuit.prompts["rows"]) == row_hashes(case.prompts())
    assert circuit.prompts["n"] == len(case.clean)
    assert circuit.weights_hash == case.model(check="none").weights_hash
    assert circuit.source == (
        "interp.discover(model, prompts, method='acdc', tau=0.02, metric='l2', ablation='resample')"
    )
    scores = circuit.scores
    assert scores.method == "acdc"
    assert min(scores.of(edge) for edge in circuit.edges) >= 0.02  # a divergence rises
    assert scores.provenance.call["runs"] >= scores.provenance.call["rounds"] > 0
    path = circuit.save(tmp_path / "mine.json")
    assert Circuit.load(path) == circuit


def test_scores_are_those_of_attribute():
    case = load_case("hist")
    model, pairs, metric = case.model(check="none"), case.prompts(), case.as_metric("linear")
    scores = interp.attribute(model, pairs, "edges", method="exact", metric=metric)
    circuit = discover(model, pairs, method="exact", metric=metric, n=4)
    assert set(circuit.edges) == set(scores.ranked()[:4])
    assert torch.equal(circuit.scores.values.nan_to_num(9.0), scores.values.nan_to_num(9.0))
    share = discover(
        model, pairs, method="eap-ig", metric=metric, n=0.5, steps=2, connected="prune"
    )
    assert share.method["connected"] == "prune"
    assert share.size <= len(share.graph.edges) // 2
    assert share.pruned() == share


def test_a_record_is_gone_on_from(tmp_path, monkeypatch):
    case = load_case("xproportion")
    args = (case.model(check="none"), case.prompts())
    options = {"metric": case.as_metric("l2"), "record": tmp_path / "course.safetensors"}
    real, calls = interp.graph.Setting.scores, []

    def stop(self, kept, **given):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, kept, **given)

    monkeypatch.setattr("interp.graph.Setting.scores", stop)
    with pytest.warns(UserWarning, match="edges are decided"):
        part = discover(*args, **options)
    assert part.method["finished"] is False
    assert case.edges("resample") < set(part.edges)
    assert part.scores.values[part.graph.full].isnan().any()  # those that were not tried
    monkeypatch.setattr("interp.graph.Setting.scores", real)
    whole = discover(*args, **options)
    assert set(whole.edges) == case.edges("resample")
    assert "finished" not in whole.method
    with pytest.raises(ResultError, match="another sweep: its tau"):
        discover(*args, tau=0.5, **options)
    calls.clear()
    monkeypatch.setattr("interp.graph.Setting.scores", stop)
    with (
        pytest.warns(UserWarning, match="record= a file would keep it"),
        pytest.warns(UserWarning, match="edges are decided"),
    ):
        discover(*args, metric=options["metric"])


@pytest.mark.parametrize(("row", "place"), [([0, 1], "END"), ([1, 0], "other")])
def test_positions_are_parts_of_edges(row, place):
    """Heads attend evenly, so each token gives half; the values are read where the tokens differ."""
    circuit = discover(
        gate("or"),
        torch.tensor([row]),
        torch.tensor([[0, 0]]),
        tau=0.1,
        positions=("END",),
        **ASKED,
    )
    assert circuit.positions == ("END", "other")
    assert set(circuit.edges) == {
        "m0->logits@END", "a0.h0->m0@END", "a0.h1->m0@END",
        f"embed->a0.h0<v>@{place}", f"embed->a0.h1<v>@{place}",
    }  # fmt: skip


def test_a_random_model_has_no_stable_circuit():
    model = interp.load("demo")
    overlap = []
    for one in (model, model.random_twin()):
        drawn = [interp.prompts.capitals(model, 12, seed) for seed in (0, 1)]
        first, second = (discover(one, pairs, method="eap", n=30) for pairs in drawn)
        overlap.append(first.jaccard(second))
    assert overlap[0] > 0.7
    assert overlap[1] < 0.45


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "acd"}, "method='acd'; expected one of acdc.*nearest: 'acdc'"),
        ({"n": 5}, "n= is no option of method='acdc', which takes tau.*belongs to exact"),
        ({"method": "eap", "n": 5, "tau": 0.1}, "tau= is no option of method='eap'.*belongs to acdc"),
        ({"method": "eap"}, "say how many to keep with n="),
        ({"method": "eap", "n": 5, "threshold": 1.0}, "one of the two"),
        ({"method": "eap", "n": 5, "steps": 3}, "steps= is no option of method='eap'"),
        ({"method": "edge-pruning"}, "give n=, such as 50"),
        ({"method": "subnetwork-probing", "connected": "prune"}, "connected= is no option"),
        ({"method": "exact", "n": 5, "record": "x"}, "record= is no option of method='exact'"),
    ],
)  # fmt: skip
def test_options_that_do_not_belong_to_the_method(options, message):
    with pytest.raises(RunError, match=message):
        discover(gate("and"), ON, OFF, **options, **ASKED)


def test_wrong_prompts():
    with pytest.raises(PromptError, match="token"):
        discover(gate("and"), ON, torch.tensor([[0, 0]]), **ASKED)
    pairs = gate("and").prompts(ON, OFF, **ASKED)
    with pytest.raises(RunError, match="these Prompts carry their own"):
        discover(gate("and"), pairs, OFF)
    with pytest.raises(MetricError, match="'accuracy' jumps"):
        discover(gate("and"), pairs, method="edge-pruning", n=3, metric="accuracy")
    same = gate("and").prompts(ON, ON, **ASKED)
    with pytest.raises(GapError, match="same with every edge ablated"):
        discover(gate("and"), same, method="edge-pruning", n=3)


def test_methods_have_names():
    assert {"acdc", "exact", "eap", "eap-ig", "edge-pruning", "subnetwork-probing"} <= set(METHODS)
