"""A role takes its threshold, an interval off zero, and twice the twin's best."""

from __future__ import annotations

import torch

from interp.pipelines.behaviour import Behaviour
from interp.pipelines.kinds import kind
from interp.pipelines.roles import Roles, assign
from interp.results import Provenance

NODES = ("a0.h0", "a0.h1", "a1.h0", "a1.h1")
WHERE = Provenance({}, "model", "hash", None, None, {})


def roles(own, twin, criteria, nodes=NODES):
    """Roles from rows of per-prompt values, one for each node."""
    own, twin = (
        [Behaviour("does", "share", nodes, torch.tensor(rows))] for rows in (own, twin)
    )  # fmt: skip
    return assign([kind("doer", "ours", criteria)], own, twin, WHERE)


def steady(*values):
    return [[value, value + 0.01, value - 0.01] for value in values]


def test_the_threshold_counts():
    found = roles(steady(0.5, 0.29, 0.9, 0.0), steady(0.1, 0.1, 0.1, 0.1), [("does", 0.3)])
    assert found.found("doer") == ("a0.h0", "a1.h0")


def test_twice_the_best_of_the_twin_counts():
    found = roles(steady(0.5, 0.7, 0.9, 0.0), steady(0.1, 0.36, 0.0, 0.0), [("does", 0.3)])
    assert found.found("doer") == ("a1.h0",)
    assert found.in_twin("doer") == ("a0.h1",)


def test_an_interval_that_reaches_zero_is_no_role():
    own = [[2.0, 2.0, 2.0], [6.0, -6.0, 6.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert roles(own, steady(0.0, 0.0, 0.0, 0.0), [("does", 1.0)]).found("doer") == ("a0.h0",)


def test_a_negative_threshold_asks_for_the_other_sign():
    own, twin = steady(-0.5, 0.5, -0.9, 0.0), steady(0.9, -0.2, 0.0, 0.0)
    found = roles(own, twin, [("does", -0.3)])
    assert found.found("doer") == ("a0.h0", "a1.h0")
    frame = found.to_frame()
    assert frame["twin"].tolist() == [frame["twin"][0]] * 2
    assert abs(frame["twin"][0] + 0.2) < 1e-6


def test_every_criterion_must_hold_and_what_was_not_measured_does_not():
    first = Behaviour("looks", "share", NODES, torch.tensor(steady(0.5, 0.5, 0.5, 0.5)))
    second = Behaviour("writes", "logits", NODES[:2], torch.tensor(steady(2.0, 0.1)))
    calm = [Behaviour(b.name, b.unit, b.nodes, b.per_prompt * 0) for b in (first, second)]
    both = [kind("mover", "ours", [("looks", 0.3), ("writes", 1.0)])]
    assert assign(both, [first, second], calm, WHERE).found("mover") == ("a0.h0",)


def test_a_behaviour_that_no_node_shows_is_left_out_of_the_definition():
    first = Behaviour("looks", "share", NODES, torch.tensor(steady(0.5, 0.1, 0.5, 0.1)))
    second = Behaviour("writes", "logits", NODES, torch.full((4, 3), torch.nan))
    calm = [Behaviour(b.name, b.unit, b.nodes, b.per_prompt * 0) for b in (first, second)]
    kinds = [
        kind("mover", "ours", [("looks", 0.3), ("writes", 1.0)]),
        kind("writer", "ours", [("writes", 1.0)]),
    ]
    found = assign(kinds, [first, second], calm, WHERE)
    assert found.found("mover") == ("a0.h0", "a1.h0")
    assert found.found("writer") == ()


def test_scores_without_prompts_have_no_interval_and_can_pass():
    found = roles([[0.5], [0.2], [0.0], [0.0]], [[0.0]] * 4, [("does", 0.3)])
    assert found.found("doer") == ("a0.h0",)
    assert found.low.isnan().all()


def test_nodes_stand_in_the_order_in_which_they_write(tmp_path):
    found = roles(steady(1.0, 1.0, 1.0, 1.0), steady(0.0, 0.0, 0.0, 0.0), [("does", 0.3)],
                  nodes=("m0", "a1.h0", "a0.h10", "a0.h2"))  # fmt: skip
    assert found.nodes == ("a0.h2", "a0.h10", "m0", "a1.h0")
    again = Roles.load(found.save(tmp_path / "roles.safetensors"))
    assert again.by_node() == found.by_node() == dict.fromkeys(found.nodes, ("doer",))
    assert again.measured().equals(found.measured())
