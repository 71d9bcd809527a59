"""EdgeScores: edges by name, rankings with stable ties, sums, files."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from interp.attribution.edges.result import EdgeScores
from interp.errors import GraphError, ResultError
from interp.graph.graph import Graph
from interp.results import Provenance


def scores_of(graph, method="eap", *, flat=None, prompts=3, per_prompt=False):
    generator = torch.Generator().manual_seed(0)
    values = torch.full(graph.full.shape, torch.nan)
    each = torch.full((prompts, *graph.full.shape), torch.nan)
    rows = torch.randn(prompts, len(graph.edges), generator=generator)
    rows = rows if flat is None else torch.tensor(flat).expand(prompts, -1)
    values[graph.index] = rows.mean(0)
    each[(slice(None), *graph.index)] = rows
    return EdgeScores(
        values, each if per_prompt else None, graph.sources, graph.dests, graph.positions,
        "logit_diff", "logits", method, "resample", "noise",
        torch.ones(prompts), torch.zeros(prompts), graph.shape,
        Provenance({"verb": "attribute"}, "a model", "0" * 64, None, None, {}),
    )  # fmt: skip


GRAPH = Graph(2, 2)


def test_an_edge_is_read_by_its_name():
    scores = scores_of(GRAPH)
    s, d = GRAPH.sources.index("a0.h1"), GRAPH.dests.index("a1.h0<k>")
    assert scores.of("a0.h1->a1.h0<k>") == float(scores.values[s, d])
    with pytest.raises(GraphError, match="it comes later or beside it"):
        scores.of("m1->a0.h0<q>")


def test_ranking_is_by_size_or_from_what_helps_most_and_ties_keep_the_order():
    graph = Graph(1, 1, pos_embed=False)
    flat = [0.0] * len(graph.edges)
    flat[1], flat[3], flat[4], flat[5] = 0.5, -0.5, -2.0, math.nan
    scores, edges = scores_of(graph, flat=flat), graph.edges
    rest = [e for i, e in enumerate(edges) if i not in (1, 3, 4, 5)]
    assert scores.ranked() == (edges[4], edges[1], edges[3], *rest, edges[5])
    assert scores.ranked(signed=True) == (edges[4], edges[3], *rest, edges[1], edges[5])
    assert scores.top(2)["edge"].tolist() == [edges[4], edges[1]]
    assert scores.top(2, signed=True)["score"].tolist() == [-2.0, -0.5]
    turned = EdgeScores(**{**vars(scores), "direction": "denoise"})  # clean values put in: + helps
    assert turned.ranked() == scores.ranked()
    assert turned.ranked(signed=True) == (edges[1], *rest, edges[3], edges[4], edges[5])


@pytest.mark.parametrize("method", ["atp*", "information-flow"])
def test_sizes_cannot_be_ranked_by_sign(method):
    scores = scores_of(GRAPH, method)
    assert not scores.signed
    assert len(scores.ranked()) == len(GRAPH.edges)
    with pytest.raises(ResultError, match="have no sign"):
        scores.ranked(signed=True)


def test_a_node_is_the_sum_of_its_outgoing_edges():
    for graph in (GRAPH, Graph(2, 2, positions=("S", "other"))):
        scores = scores_of(graph)
        expected = dict.fromkeys(graph.sources, 0.0)
        for edge in graph.edges:
            expected[edge.split("->")[0]] += scores.of(edge)
        assert scores.nodes() == pytest.approx(expected, abs=1e-5)


def test_a_frame_has_a_row_for_each_edge():
    graph = Graph(2, 2, positions=("S", "other"))
    frame = scores_of(graph, per_prompt=True).to_frame()
    assert frame["edge"].tolist() == list(graph.edges)
    assert list(frame) == ["edge", "source", "dest", "position", "score", "low", "high"]
    assert (frame["low"] <= frame["score"]).all()
    assert (frame["score"] <= frame["high"]).all()
    assert list(scores_of(GRAPH).to_frame()) == ["edge", "source", "dest", "score"]


def test_a_group_of_positions():
    scores = scores_of(Graph(2, 2, positions=("S", "other")))
    assert torch.equal(scores.at("other").nan_to_num(), scores.values[..., 1].nan_to_num())
    with pytest.raises(GraphError, match="no group of positions 'END'"):
        scores.at("END")


@pytest.mark.parametrize("graph", [GRAPH, Graph(2, 2, mlps=False, positions=("S", "other"))])
def test_a_file_holds_it_all(graph, tmp_path):
    for per_prompt in (False, True):
        scores = scores_of(graph, per_prompt=per_prompt)
        scores.ranked()  # what was looked up is not saved
        again = EdgeScores.load(scores.save(tmp_path / "s.safetensors"))
        assert torch.allclose(again.values, scores.values, rtol=0, atol=0, equal_nan=True)
        assert (again.per_prompt is None) == (not per_prompt)
        assert again.graph.edges == graph.edges
        assert again.ranked() == scores.ranked()
        assert repr(again) == repr(scores)


def test_its_text_says_what_it_is():
    assert repr(scores_of(GRAPH)) == (
        f"EdgeScores({len(GRAPH.edges)} edges; logit_diff in logits: full 1, empty 0; eap, resample "
        "ablation, 3 prompts)"
    )
    assert scores_of(GRAPH).what == "estimated change of logit_diff (logits) if ablated"
    assert scores_of(GRAPH, "exact").what == "change of logit_diff (logits) if ablated"


def test_plots():
    for graph in (Graph(4, 6, parallel=True, pos_embed=False), Graph(12, 12), Graph(1, 1),
                  Graph(2, 2, mlps=False, positions=("S", "other"))):  # fmt: skip
        for method in ("eap", "atp*"):
            assert isinstance(scores_of(graph, method).plot(limit=1.0), Figure)
