"""A circuit's record is measured again: it holds, and one exchanged edge is found out."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

import interp
from interp.circuits.acquaintance import described, unseen
from interp.circuits.circuit import Circuit
from interp.circuits.verification import Verification
from interp.circuits.verify import KEY, record, recorded, verify
from interp.errors import CircuitError
from interp.graph import Graph, Setting


@pytest.fixture(scope="module")
def model():
    return interp.load("demo", check=False)


@pytest.fixture(scope="module")
def shipped(model):
    """Some edges that matter for capitals: heads at the end that read the subject's first MLP."""
    edges = {"embed->m0", "m0->a1.h5<v>", "m0->a2.h0<v>", "m0->a2.h5<v>", "a1.h5->m2", "m2->logits",
             "a1.h5->logits", "a2.h0->logits", "a2.h5->logits"}  # fmt: skip
    own = Circuit(
        "capitals-demo", edges, Graph.of(model).shape, model="demo", metric="logit_diff",
        weights_hash=model.weights_hash, ablation="resample",
    )  # fmt: skip
    return record(own, model, task="capitals", n=8, seed=7, command="a test")


def swapped(circuit, member, other):
    return replace(circuit, edges=(circuit.edges - {member}) | {other})


def test_what_was_recorded_is_measured_again(model, shipped, tmp_path):
    found = verify(shipped, model)
    assert found.ok
    assert not found.failures
    assert len(found.names) == 4 + shipped.size
    assert "all 13 numbers as recorded" in repr(found)
    again = Circuit.load(shipped.save(tmp_path / "capitals-demo.json"))
    assert verify(again, model).ok
    kept = Verification.load(found.save(tmp_path / "found.safetensors"))
    assert kept.to_frame().equals(found.to_frame())
    assert kept.ok


def test_one_member_exchanged_for_any_other_edge_fails(model, shipped):
    draw = random.Random(0)
    others = [edge for edge in shipped.graph.edges if edge not in shipped.edges]
    for member in ("a2.h5->logits", "embed->m0"):
        found = verify(swapped(shipped, member, draw.choice(others)), model)
        assert not found.ok
        assert any(member in line and "not in the circuit" in line for line in found.failures)
        assert any("not in its record" in line for line in found.failures)


def test_it_fails_by_what_is_measured_when_the_record_is_renamed_too(model, shipped):
    """The exchanged edge is given the old one's number."""
    other = "embed->a1.h0<q>"
    entry = shipped.measured[KEY]
    renamed = {(other if e == "a2.h5->logits" else e): v for e, v in entry["removal"].items()}
    forged = replace(
        swapped(shipped, "a2.h5->logits", other), measured={KEY: {**entry, "removal": renamed}}
    )
    found = verify(forged, model)
    assert not found.ok
    assert any(line.startswith("circuit: recorded") for line in found.failures)
    assert found.plot().axes
    assert "FAILED" in repr(found)


def test_another_model_fails_and_says_so(model, shipped):
    found = verify(shipped, model.random_twin(check=False))
    assert not found.ok
    assert "weights are not those" in found.failures[0]


def test_a_model_that_does_not_do_the_task_fails_and_does_not_raise(model, shipped, monkeypatch):
    same = interp.load("demo", check=False)
    real = Setting.scores
    monkeypatch.setattr(Setting, "scores", lambda *a, **k: real(*a, **k) * 0)
    monkeypatch.setattr(Setting, "full", torch.zeros(8))
    found = verify(shipped, same)
    assert not found.ok
    assert any(line.startswith("faithfulness: recorded") for line in found.failures)


def test_prompts_it_was_found_on_are_left_out_of_the_record(model, shipped, tmp_path):
    drawn = interp.prompts.capitals(model, 8, 7)
    seen = drawn.subset([0, 3, 5])
    own = replace(shipped, prompts=described(seen), measured={})
    again = record(own, model, task="capitals", n=8, seed=7)
    entry = again.measured[KEY]
    assert entry["prompts"]["left_out"] == 3
    assert entry["prompts"]["hash"] == drawn.subset([1, 2, 4, 6, 7]).hash
    assert entry["full"] != shipped.measured[KEY]["full"]
    assert verify(Circuit.load(again.save(tmp_path / "a.json")), model).ok
    assert unseen(own, seen) is seen  # nothing would be left
    with pytest.warns(UserWarning, match="8 of these 8 prompts are among those"):
        record(replace(own, prompts=described(drawn)), model, task="capitals", n=8, seed=7)


def test_other_prompts_than_recorded_fail(model, shipped):
    entry = shipped.measured[KEY]
    forged = {KEY: {**entry, "prompts": {**entry["prompts"], "seed": 8}}}
    assert "not the recorded ones" in verify(replace(shipped, measured=forged), model).failures[0]


def test_what_it_refuses(model, shipped):
    assert recorded(shipped)
    assert not recorded(replace(shipped, measured={}))
    with pytest.raises(CircuitError, match="has no record to verify"):
        verify(replace(shipped, measured={}), model)
    entry = dict(shipped.measured[KEY])
    del entry["removal"]
    with pytest.raises(CircuitError, match="record of 'capitals-demo' is damaged"):
        verify(replace(shipped, measured={KEY: entry}), model)
    with pytest.raises(CircuitError, match="no task is called 'capitols'.*'capitals'"):
        record(shipped, model, task="capitols")
    with pytest.raises(CircuitError, match="draws no prompts"):
        record(shipped, model, task="capitals", options={"wrong": 1})
