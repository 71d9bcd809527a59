"""The circuits that are shipped are what their files say, measured again; their claims are in them."""

from __future__ import annotations

import random

import pytest

import interp
from interp.circuits import Circuit, shipped, verify

DEMO = tuple(name for name in shipped() if name.endswith("-demo"))


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


def test_every_task_of_the_demo_model_has_one():
    tasks = ("capitals", "greater_than", "induction", "ioi", "mcq")
    assert sorted(DEMO) == [f"{task}-demo" for task in tasks]


@pytest.mark.parametrize("name", DEMO)
def test_they_measure_as_recorded(name, model):
    circuit = Circuit.load(name)
    found = verify(circuit, model)
    assert found.ok, found.failures
    assert len(found.names) == 4 + circuit.size


@pytest.mark.parametrize("name", DEMO)
def test_what_their_files_claim(name, model):
    circuit = Circuit.load(name)
    assert circuit.weights_hash == model.weights_hash
    assert circuit.roles
    assert circuit.source.startswith("interp circuit find")
    measured = circuit.measured
    assert measured["low"] <= measured["faithfulness"] <= measured["high"]
    assert measured["faithfulness"] >= 0.9
    assert measured["evaluation"]["faithfulness"] >= 0.9  # a third draw of prompts
    assert circuit.density <= 0.1
    assert measured["stability"] >= 0.7
    assert measured["stability"] > measured["twin_stability"]
    assert circuit.prompts["hash"] != measured["evaluation"]["prompts"]["hash"]


def test_one_edge_exchanged_for_a_random_one_fails(model):
    """The smallest of them, which is quickest to measure."""
    circuit = min(map(Circuit.load, DEMO), key=len)
    draw = random.Random(0)
    member = draw.choice(circuit.ordered)
    other = draw.choice([edge for edge in circuit.graph.edges if edge not in circuit.edges])
    edges = (circuit.edges - {member}) | {other}
    tampered = Circuit(**{**_fields(circuit), "edges": edges, "roles": {}})
    found = verify(tampered, model)
    assert not found.ok
    assert any(member in failure for failure in found.failures)


def _fields(circuit):
    return {name: getattr(circuit, name) for name in circuit.__dataclass_fields__}
