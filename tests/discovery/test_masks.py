"""Learned masks: gates by their paper, planted circuits found, the same bytes from the same seed."""

from __future__ import annotations

import math

import pytest
import torch

from interp.discovery.gates import at_rest, open_chance, sampled, start_of, uniforms
from interp.discovery.mask_record import MaskRecord
from interp.discovery.masks import edge_pruning, subnetwork_probing
from interp.errors import GapError, MetricError, ResultError, RunError
from interp.graph.graph import Graph
from tests.discovery.toys import Formula, Network

GRAPH = Graph(n_layers=2, n_heads=2)
PLANTED = ("embed->m0", "m0->a1.h1<v>", "a1.h1->logits", "a0.h0->m1", "m1->logits")


def planted(graph=GRAPH, edges=PLANTED, metric="kl"):
    """A divergence which each missing edge adds to."""
    weights = graph.mask(edges).double()
    return Formula(graph, lambda kept: ((1 - kept) * weights).square().flatten(1).sum(1), metric)


def test_gates_are_hard_concrete():
    alpha = torch.linspace(-4, 4, 10, dtype=torch.float64)
    drawn = sampled(alpha, uniforms(20_000, 10, seed=0, step=0))
    assert bool(((drawn >= 0) & (drawn <= 1)).all())
    torch.testing.assert_close((drawn > 0).double().mean(0), open_chance(alpha), atol=0.01, rtol=0)
    closed = torch.sigmoid(2 / 3 * math.log(0.1 / 1.1) - alpha)  # eq. 12: 1 - P(open)
    torch.testing.assert_close(1 - open_chance(alpha), closed)
    assert (at_rest(alpha) > 0.5).tolist() == (alpha > 0).tolist()
    assert float(at_rest(torch.tensor(start_of(0.9)))) == pytest.approx(0.9)


def test_noise_belongs_to_seed_and_step():
    first = uniforms(2, 5, seed=1, step=7)
    assert torch.equal(first, uniforms(2, 5, seed=1, step=7))
    assert not torch.equal(first, uniforms(2, 5, seed=1, step=8))
    assert not torch.equal(first, uniforms(2, 5, seed=2, step=7))


@pytest.mark.parametrize("seed", [0, 1])
def test_edge_pruning_finds_the_planted_edges(seed):
    record = edge_pruning(planted(), 5, steps=150, seed=seed)
    assert set(GRAPH.names(record.mask)) == set(PLANTED)
    by_threshold = edge_pruning(planted(), 5, steps=150, seed=seed, cut="threshold")
    assert set(PLANTED) <= set(GRAPH.names(by_threshold.mask))
    assert float(record["open"][-1]) == pytest.approx(5 / len(GRAPH.edges), abs=0.05)
    assert float(record["distance"][-1]) < 0.2
    assert bool(record.gates.isnan().equal(~GRAPH.full))


def test_edge_pruning_with_nodes_that_bend():
    """In a network of tanh nodes the learned edges lose far less than random ones of their number."""
    setting = Network(GRAPH, 3, share=0.4)
    record = edge_pruning(setting, 15, steps=150)
    draw = torch.Generator().manual_seed(0)
    random = torch.stack([
        GRAPH.mask([GRAPH.edges[i] for i in torch.randperm(61, generator=draw)[:15].tolist()])
        for _ in range(20)
    ])  # fmt: skip
    chance = setting.scores(random).mean(-1)
    assert int(record.mask.sum()) == 15
    assert float(setting.scores(record.mask[None]).mean()) < 0.2 * float(chance.median())


def test_other_metrics_are_compared_with_the_full_model():
    """A score that the circuit must meet, not raise: hurtful edges stay too."""
    weights = torch.zeros_like(GRAPH.full, dtype=torch.float64)
    weights[GRAPH.mask(["m1->logits"])], weights[GRAPH.mask(["m0->logits"])] = 3.0, -2.0
    setting = Formula(GRAPH, lambda kept: (kept * weights).flatten(1).sum(1), "logit_diff")
    record = edge_pruning(setting, 2, steps=150)
    assert GRAPH.names(record.mask) == ("m0->logits", "m1->logits")


def test_subnetwork_probing_finds_the_planted_nodes():
    """Only what passes embed, m0 and head a1.h1 counts."""
    nodes = ("embed", "m0", "a1.h1")
    weights = torch.zeros(len(GRAPH.sources), 1, dtype=torch.float64)
    for node in nodes:
        weights[GRAPH.sources.index(node)] = 1.0
    setting = Formula(
        GRAPH, lambda kept: ((1 - kept) * weights * GRAPH.real).flatten(1).sum(1), "kl"
    )
    record = subnetwork_probing(setting, steps=150)
    among = {edge for edge in GRAPH.edges if edge.split("->")[0] in nodes
             and edge.split("->")[1].split("<")[0] in (*nodes, "logits")}  # fmt: skip
    assert set(GRAPH.names(record.mask)) == among
    fewer = subnetwork_probing(setting, steps=150, n=len(among) - 1)
    assert 0 < int(fewer.mask.sum()) < len(among)
    assert set(GRAPH.names(subnetwork_probing(setting, steps=150, n=len(among)).mask)) == among
    assert record["target"].isnan().all()


def test_positions_have_gates_of_their_own():
    graph = Graph(n_layers=1, n_heads=1, positions=("S", "other"))
    edges = ("embed->m0@S", "m0->logits@other")
    record = edge_pruning(planted(graph, edges), 2, steps=150)
    assert set(graph.names(record.mask)) == set(edges)
    nodes = subnetwork_probing(planted(graph, edges), steps=20)
    assert nodes.mask.shape == graph.full.shape


def test_the_same_seed_gives_the_same_bytes_and_resuming_too(tmp_path):
    whole = edge_pruning(planted(), 5, steps=40, seed=4)
    again = edge_pruning(planted(), 5, steps=40, seed=4)
    assert torch.equal(whole.log_alpha, again.log_alpha)
    assert not torch.equal(whole.log_alpha, edge_pruning(planted(), 5, steps=40, seed=5).log_alpha)
    setting = planted()
    real, calls = setting.scores, []

    def stop(kept, grad=False):
        calls.append(1)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return real(kept, grad=grad)

    setting.scores = stop
    with pytest.warns(UserWarning, match="interrupted after 17 of 40 steps.*resume="):
        part = edge_pruning(setting, 5, steps=40, seed=4)
    assert not part.finished
    path = part.save(tmp_path / "part.safetensors")
    rest = edge_pruning(planted(), 5, steps=40, seed=4, resume=path)
    assert rest.finished
    assert torch.equal(rest.log_alpha, whole.log_alpha)
    assert torch.equal(rest.values, whole.values)
    with pytest.raises(ResultError, match="another sweep: its n is 5"):
        edge_pruning(planted(), 6, steps=40, seed=4, resume=path)


def test_record(tmp_path):
    record = edge_pruning(planted(), 0.1, steps=30)
    loaded = MaskRecord.load(record.save(tmp_path / "mask.safetensors"))
    assert torch.equal(loaded.mask, record.mask)
    assert int(loaded.mask.sum()) == int(0.1 * len(GRAPH.edges))
    frame = loaded.to_frame()
    assert list(frame.columns) == ["step", "distance", "open", "target"]
    assert frame["target"].iloc[-1] == pytest.approx(6 / 61)
    assert [axes.get_xlabel() for axes in loaded.plot().axes] == ["step", "step"]
    assert "30 of 30 steps" in repr(loaded)
    with pytest.raises(ResultError, match="no curve is called 'loss'"):
        loaded["loss"]


def test_what_cannot_be_trained():
    with pytest.raises(GapError, match="same with every edge ablated"):
        edge_pruning(planted(edges=()), 5)
    with pytest.raises(MetricError, match="'accuracy' jumps"):
        edge_pruning(planted(metric="accuracy"), 5)
    for options, message in (
        ({"steps": 0}, "steps=0; expected a positive"),
        ({"lr": 0.0}, "lr=0.0; expected a learning rate"),
        ({"cut": "half"}, "cut='half'; expected 'rank'"),
        ({"warmup": 2.0}, "warmup=2.0; expected a share"),
    ):
        with pytest.raises(RunError, match=message):
            edge_pruning(planted(), 5, **options)
    with pytest.raises(RunError, match="penalty=-1"):
        subnetwork_probing(planted(), penalty=-1)
