"""AUROC: by hand with ties, and as stored for compiled models."""

from __future__ import annotations

import pytest
import torch

from interp.circuits.truth import auroc, mann_whitney
from interp.errors import CircuitError, GraphError
from interp.graph import Graph
from tests.cases import CASES, load_case
from tests.circuits.formula import GRAPH, LAST, LEFT, scored

TRUE = (*LEFT, LAST)


def test_pairs_are_counted_by_hand():
    values = torch.tensor([3.0, 1.0, 2.0, 1.0, 0.0])
    true = torch.tensor([True, True, False, False, False])
    # 3 beats 2, 1, 0; 1 loses to 2, ties with 1, beats 0
    assert mann_whitney(values, true) == pytest.approx((3 + 0.5 + 1) / 6)
    assert mann_whitney(values.flip(0), true.flip(0)) == pytest.approx(4.5 / 6)


def test_all_equal_is_chance_and_size_counts_without_sign():
    assert auroc(scored(GRAPH, {}), TRUE) == 0.5
    assert auroc(scored(GRAPH, dict.fromkeys(TRUE, -1.0)), TRUE) == 1.0
    wrong = {edge: 1.0 for edge in GRAPH.edges if edge not in TRUE}
    assert auroc(scored(GRAPH, wrong), TRUE) == 0.0


def test_rounding_breaks_no_tie():
    noise = {edge: 1e-12 * i for i, edge in enumerate(GRAPH.edges)}
    assert auroc(scored(GRAPH, noise), TRUE) == 0.5
    assert auroc(scored(GRAPH, noise), TRUE, zero=0.0) != 0.5


def test_nodes_are_sums_of_outgoing_scores():
    scores = {"a0.h0->m1": 2.0, "a0.h0->logits": -2.0, "m1->logits": -1.0, "embed->m0": 0.5}
    # sizes: a0.h0 0, m1 1, embed 0.5, others 0; true: embed, a0.h0, m1 of 7 sources
    found = auroc(scored(GRAPH, scores), TRUE, level="nodes")
    assert found == pytest.approx((4 + 4 + 4 * 0.5) / 12)


@pytest.mark.parametrize("name", CASES)
def test_stored_values_of_compiled_models(name):
    case = load_case(name)
    cfg = case.cfg
    graph = Graph(cfg["n_layers"], cfg["n_heads"])
    for key, expected in case.truth["auroc"].items():
        matrix, which = key.split("|")
        found = auroc(scored(graph, case.golden[matrix]), case.edges(which))
        assert found == pytest.approx(expected, abs=6e-5), key


def test_what_it_refuses():
    with pytest.raises(CircuitError, match="0 of 46 are in the true circuit"):
        auroc(scored(GRAPH, {}), ())
    with pytest.raises(CircuitError, match="46 of 46"):
        auroc(scored(GRAPH, {}), GRAPH.edges)
    with pytest.raises(GraphError, match="not an edge"):
        auroc(scored(GRAPH, {}), ["m7->logits"])
    with pytest.raises(CircuitError, match="1 of 46 edges have no score"):
        auroc(scored(GRAPH, {LAST: torch.nan}), TRUE)


@pytest.mark.bad_input
def test_an_unknown_level_is_refused():
    with pytest.raises(CircuitError, match="expected 'edges' or 'nodes'"):
        auroc(scored(GRAPH, {}), TRUE, level="heads")
