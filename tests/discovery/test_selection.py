"""From scores to circuits: ties, signs, and circuits that hang together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from interp.circuits.pruning import connected
from interp.discovery.selection import at_least, n_edges, top_n
from interp.errors import RunError
from interp.graph.graph import Graph
from interp.graph.names import node_of, split_edge
from tests.discovery.toys import both, either

GRAPH = Graph(n_layers=2, n_heads=2)
N = len(GRAPH.edges)


def scores(values=None, *, graph=GRAPH, metric="logit_diff", **given):
    """Scores by edge; the others have the score 0."""
    table = torch.where(graph.full, 0.0, torch.nan)
    for edge, value in (values or given).items():
        table[graph.mask([edge])] = value
    return SimpleNamespace(graph=graph, values=table, metric=metric)


def random_scores(seed, graph=GRAPH):
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(graph.full.shape, generator=draw).round(decimals=1)  # with ties
    return SimpleNamespace(graph=graph, values=torch.where(graph.full, table, torch.nan),
                           metric="logit_diff")  # fmt: skip


def test_ties_stand_in_the_order_of_the_graph():
    assert GRAPH.names(top_n(scores({}), 5)) == GRAPH.edges[:5]
    some = scores({"m1->logits": -1.0, "a0.h1->m1": 1.0})
    assert GRAPH.names(top_n(some, 1)) == ("a0.h1->m1",)
    assert GRAPH.names(top_n(some, 3)) == (GRAPH.edges[0], "a0.h1->m1", "m1->logits")


def test_signed_takes_what_helps():
    """A score is the metric without the edge less that with it: of a loss it rises if the edge helps."""
    some = {"m1->logits": -1.0, "m0->logits": 2.0}
    assert GRAPH.names(top_n(scores(some), 1)) == ("m0->logits",)
    assert GRAPH.names(top_n(scores(some), 1, signed=True)) == ("m1->logits",)
    assert GRAPH.names(top_n(scores(some, metric="kl"), 1, signed=True)) == ("m0->logits",)
    last = GRAPH.mask(GRAPH.edges) & ~top_n(scores(some), N - 1, signed=False)
    assert float(scores(some).values[last]) == 0
    assert not top_n(scores(some), N - 1, signed=True)[GRAPH.mask(["m0->logits"])]


def test_numbers_and_shares():
    assert n_edges(GRAPH, 0.1) == int(0.1 * N)
    assert n_edges(GRAPH, 1) == 1
    assert n_edges(GRAPH, 1.0) == N
    for wrong in (1.5, 0.0, -1, N + 1, True, "7"):
        with pytest.raises(RunError, match="n="):
            n_edges(GRAPH, wrong)


def test_edges_without_a_score_are_never_taken():
    some = scores({"m1->logits": torch.nan, "m0->logits": 0.5})
    assert not bool(top_n(some, N - 1)[GRAPH.mask(["m1->logits"])])
    with pytest.raises(RunError, match=f"asks for {N} edges, and {N - 1} have a score"):
        top_n(some, N)
    assert GRAPH.names(at_least(some, 0.5)) == ("m0->logits",)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_grows_from_the_logits(seed):
    """Against the rule by hand: the best edge into what is reached, again and again."""
    some = random_scores(seed)
    strong = {edge: abs(float(some.values[GRAPH.mask([edge])])) for edge in GRAPH.edges}
    reached, taken = {"logits"}, []
    for n in range(1, 25):
        open_ = [edge for edge in GRAPH.edges
                 if edge not in taken and node_of(split_edge(edge)[1]) in reached]  # fmt: skip
        taken.append(max(open_, key=lambda edge: (strong[edge], -GRAPH.number(edge))))
        reached.add(split_edge(taken[-1])[0])
        assert set(GRAPH.names(top_n(some, n, connected="greedy"))) == set(taken)


def test_greedy_reads_at_the_columns_that_matter():
    """An MLP's and a query's column is the one they write to; keys and values come from anywhere."""
    graph = Graph(n_layers=2, n_heads=1, positions=("S", "other"))
    strong = {"m1->logits@S": 5.0, "m0->m1@other": 4.0, "m0->m1@S": 1.0}
    assert set(graph.names(top_n(scores(strong, graph=graph), 2, connected="greedy"))) == {
        "m1->logits@S", "m0->m1@S",
    }  # fmt: skip
    strong = {"a1.h0->logits@S": 5.0, "m0->a1.h0<v>@other": 4.0, "m0->a1.h0<q>@other": 4.5}
    assert set(graph.names(top_n(scores(strong, graph=graph), 2, connected="greedy"))) == {
        "a1.h0->logits@S", "m0->a1.h0<v>@other",
    }  # fmt: skip


@pytest.mark.parametrize("connected_", [None, "prune", "greedy"])
def test_everything_is_everything(connected_):
    assert torch.equal(top_n(random_scores(0), N, connected=connected_), GRAPH.full)
    assert not bool(top_n(random_scores(0), 0, connected=connected_).any())


@pytest.mark.parametrize("seed", range(4))
def test_pruned_edges_lie_on_paths(seed):
    some = random_scores(seed)
    plain, pruned = (top_n(some, 12, connected=how) for how in (None, "prune"))
    assert int(plain.sum()) == 12
    assert set(GRAPH.names(pruned)) == set(connected(GRAPH.names(plain)))


def test_thresholds():
    some = scores({"m1->logits": -3.0, "m0->m1": 2.0, "embed->m0": 1.0, "a0.h0->a1.h0<q>": 2.0})
    assert set(GRAPH.names(at_least(some, 1.0))) == {
        "m1->logits", "m0->m1", "embed->m0", "a0.h0->a1.h0<q>"
    }  # fmt: skip
    path = {"m1->logits", "m0->m1", "embed->m0"}
    assert set(GRAPH.names(at_least(some, 1.0, connected="prune"))) == path
    assert set(GRAPH.names(at_least(some, 1.0, connected="greedy"))) == path
    assert set(GRAPH.names(at_least(some, 2.0, connected="greedy"))) == {"m1->logits", "m0->m1"}
    assert GRAPH.names(at_least(some, 0.5, signed=True)) == ("m1->logits",)
    with pytest.raises(RunError, match="threshold=nan"):
        at_least(some, float("nan"))


def test_nothing_is_changed_in_place():
    some = random_scores(1)
    before = some.values.clone()
    for how in (None, "prune", "greedy"):
        top_n(some, 10, connected=how, signed=True)
    assert torch.equal(some.values.nan_to_num(9.0), before.nan_to_num(9.0))


def test_one_head():
    graph = Graph(n_layers=1, n_heads=1, mlps=False, pos_embed=False)
    assert graph.names(top_n(random_scores(0, graph), len(graph.edges))) == graph.edges


def test_noise_finds_and_denoise_finds_or():
    """Two edges that are needed together, and two of which either will do.

    Ablating one edge of an AND breaks it, restoring one does not mend it; with an OR it is the
    other way round. So the two directions rank different edges first.
    """
    one, two = "m0->logits", "m1->logits"

    def exact(setting, direction):
        each = torch.stack([setting.graph.mask([edge]) for edge in GRAPH.edges])
        kept = setting.graph.full & ~each if direction == "noise" else each
        base = setting.full if direction == "noise" else setting.empty
        effect = (setting.scores(kept) - base).mean(-1)
        table = torch.where(GRAPH.full, 0.0, torch.nan).double()
        table[GRAPH.index] = effect if direction == "noise" else -effect
        return SimpleNamespace(graph=GRAPH, values=table, metric="score")

    for make, finds, misses in ((both, "noise", "denoise"), (either, "denoise", "noise")):
        setting = make(GRAPH, one, two)
        found = exact(setting, finds)
        assert GRAPH.names(at_least(found, 0.5)) == (one, two)
        assert GRAPH.names(top_n(found, 2, signed=True)) == (one, two)
        assert not bool(exact(setting, misses).values.nan_to_num(0.0).any())


def test_wrong_options():
    with pytest.raises(RunError, match="connected='grow'; expected None"):
        top_n(scores({}), 3, connected="grow")
    unsigned = SimpleNamespace(**vars(scores({})), signed=False)
    with pytest.raises(RunError, match="have no sign"):
        top_n(unsigned, 3, signed=True)
