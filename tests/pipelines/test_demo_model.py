"""On the demo model, roles are those that the model's behaviour bears; its untrained twin has none."""

from __future__ import annotations

import pytest

import interp
from interp.pipelines.roles import assign
from interp.pipelines.tasks import factual_recall, greater_than, induction, ioi, mcq
from interp.results import Provenance

WHERE = Provenance({}, "demo", "hash", None, None, {})


@pytest.fixture(scope="module")
def models():
    model = interp.load("demo")
    return model, model.random_twin(1, check=False), model.random_twin(2, check=False)


def found(models, task, gap, n=12):
    """Roles of the model beside its twin; the twin reaches the thresholds of none."""
    pairs = task.prompts(models[0], n, 0)
    own, theirs = (task.measure(who, pairs).behaviours for who in models[:2])
    roles = assign(task.kinds(gap), own, theirs, WHERE)
    assert all(roles.in_twin(role) == () for role in roles.names)
    return roles


def test_greater_than(models):
    roles = found(models, greater_than, 0.6)
    movers = roles.found("year mover")
    assert movers
    assert roles.found("greater-than")
    assert roles.found("year encoder")
    row = roles.behaviours.index("attention END→YY")
    assert all(float(roles.values[row, roles.nodes.index(node)]) > 0.9 for node in movers)


def test_ioi(models):
    roles = found(models, ioi, 19.0)
    assert roles.found("S-inhibition")
    assert roles.found("name copier")
    assert roles.found("readout")
    assert set(roles.found("name mover")) <= set(roles.found("name copier"))


def test_mcq(models):
    roles = found(models, mcq, 19.0, n=24)
    assert roles.found("correct option")
    assert roles.found("content gatherer")


def test_a_twin_beside_another_has_no_roles(models):
    _, twin, other = models
    pairs = greater_than.prompts(twin, 12, 0)
    own, theirs = (greater_than.measure(who, pairs).behaviours for who in (twin, other))
    assert assign(greater_than.kinds(0.01), own, theirs, WHERE).by_node() == {}


def test_factual_recall(models):
    roles = found(models, factual_recall, 26.0)
    assert len(roles.found("mover")) >= 2
    assert roles.found("subject enrichment")
    assert roles.found("readout")


def test_induction(models):
    model, twin = models[:2]
    pairs = induction.prompts(model, 8, 0, period=8)
    own, theirs = (induction.measure(who, pairs) for who in (model, twin))
    roles = assign(induction.kinds(16.0), own.behaviours, theirs.behaviours, WHERE)
    assert len(roles.found("induction")) >= 4
    assert roles.found("previous token")
    strongest = own.steps["k_composition"].top(1)
    assert strongest.lost[0] > 0.5
    assert strongest.receiver[0] in roles.found("induction")
    assert set(roles.found("previous token")) & set(roles.found("K-composition"))
    assert all(roles.in_twin(role) == () for role in roles.names)
