"""ACDC: the published rule, planted circuits, and speculation that changes nothing."""

from __future__ import annotations

import pytest
import torch

from interp.discovery.acdc import acdc, removal_order
from interp.discovery.acdc_record import AcdcRecord
from interp.discovery.connection import live
from interp.errors import ResultError, RunError
from interp.graph.graph import Graph
from interp.graph.names import node_of, split_edge
from interp.graph.setting import Setting
from tests.cases.loading import load_case
from tests.discovery.toys import Formula, Network, both, either

GRAPH = Graph(n_layers=2, n_heads=2)
NARROW = Graph(n_layers=2, n_heads=1)


def by_hand(setting, tau, signed=True):
    """The algorithm of the paper, one run for each edge that could matter."""
    kept = setting.graph.full.clone()
    current = float(setting.full.mean())
    changes = {}
    for number in removal_order(setting.graph).tolist():
        edge = setting.graph.edges[number]
        place = tuple(int(axis[number]) for axis in setting.graph.index)
        dead = not bool(live(setting.graph, kept)[place])
        kept[place] = False
        new = float(setting.scores(kept[None]).mean())
        assert not dead or new == current  # exactly nothing changes
        changes[edge] = new - current
        if (new - current if signed else abs(new - current)) < tau:
            current = new
        elif not dead:
            kept[place] = True
    return set(setting.graph.names(kept)), changes


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_is_the_published_algorithm(seed, ablation):
    setting = Network(GRAPH, seed, ablation=ablation)
    expected, changes = by_hand(setting, 0.05)
    record = acdc(setting, tau=0.05)
    assert set(record.graph.names(record.mask)) == expected
    assert 0 < len(expected) < len(GRAPH.edges)
    found = dict(zip(record.edges, record.change.tolist(), strict=True))
    assert {e: pytest.approx(c) for e, c in changes.items()} == found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("positions", [(), ("S", "other")])
def test_speculation_changes_nothing(seed, positions):
    graph = Graph(n_layers=2, n_heads=2, positions=positions)
    setting = Network(graph, seed)
    one, many = (acdc(setting, tau=0.02, batch=batch) for batch in (1, "auto"))
    assert one.edges == many.edges
    assert torch.equal(one.kept, many.kept)
    torch.testing.assert_close(one.change, many.change)
    torch.testing.assert_close(one.along, many.along)
    assert torch.equal(one.run, many.run)
    assert one.runs == int(one.run.sum()) == one.rounds
    assert many.rounds < one.rounds
    assert float(many.along[-1]) == pytest.approx(float(setting.scores(many.mask[None]).mean()))


def test_rounds_are_about_the_kept_edges():
    graph = Graph(n_layers=4, n_heads=6)
    wanted = {edge for edge in graph.edges if edge.endswith("->logits")} | {*graph.edges[9::90]}
    weights = graph.mask(wanted).double()
    setting = Formula(graph, lambda kept: -(kept * weights).flatten(1).sum(1), metric="kl")
    record = acdc(setting, tau=0.5)
    assert set(graph.names(record.mask)) == wanted
    assert record.rounds < 2.5 * len(wanted)
    assert record.rounds < len(graph.edges) / 8
    assert record.runs < 1.7 * len(graph.edges)
    assert max(setting.batches) == 64


def test_order_goes_from_the_logits_backwards():
    edges = [GRAPH.edges[i] for i in removal_order(GRAPH).tolist()]
    assert edges[:3] == ["m1->logits", "a1.h1->logits", "a1.h0->logits"]
    assert edges[-1] == "embed->a0.h0<q>"
    for order in ("latest", "earliest", "random"):
        tried = [GRAPH.edges[i] for i in removal_order(GRAPH, order, seed=3).tolist()]
        assert sorted(tried) == sorted(GRAPH.edges)
        last_out = {split_edge(edge)[0]: at for at, edge in enumerate(tried)}
        for at, edge in enumerate(tried):
            reader = node_of(split_edge(edge)[1])
            assert reader == "logits" or last_out[reader] < at
    earliest = [GRAPH.edges[i] for i in removal_order(GRAPH, "earliest").tolist()]
    assert earliest[:2] == ["embed->logits", "pos_embed->logits"]
    assert not torch.equal(removal_order(GRAPH, "random", 0), removal_order(GRAPH, "random", 1))


def test_one_head():
    setting = Network(NARROW, 1, share=0.5)
    assert set(NARROW.names(acdc(setting, tau=0.05).mask)) == by_hand(setting, 0.05)[0]


def test_and_keeps_both_or_keeps_the_last_one_tried():
    one, two = "embed->logits", "m1->logits"
    assert GRAPH.names(acdc(both(GRAPH, one, two), tau=0.5).mask) == (one, two)
    assert GRAPH.names(acdc(either(GRAPH, one, two), tau=0.5).mask) == (one,)
    record = acdc(either(GRAPH, one, two), tau=0.5, order="earliest")
    assert GRAPH.names(record.mask) == (two,)


def test_a_loss_counts_only_rises_and_a_score_both_ways():
    """One edge helps and one hurts, each by 1."""
    helps, hurts = "m1->logits", "m0->logits"

    def value(kept):
        good, bad = ((kept * GRAPH.mask([edge])).flatten(1).sum(1) for edge in (helps, hurts))
        return good - bad

    score = Formula(GRAPH, value, metric="logit_diff")
    loss = Formula(GRAPH, lambda kept: -value(kept), metric="kl")
    assert set(GRAPH.names(acdc(score, tau=0.5).mask)) == {helps, hurts}
    assert GRAPH.names(acdc(score, tau=0.5, signed=True).mask) == (helps,)
    assert GRAPH.names(acdc(loss, tau=0.5).mask) == (helps,)
    assert set(GRAPH.names(acdc(loss, tau=0.5, signed=False).mask)) == {helps, hurts}


def test_a_change_of_exactly_tau_keeps():
    setting = both(GRAPH, "embed->logits", "m1->logits")
    assert int(acdc(setting, tau=1.0).kept.sum()) == 2
    assert int(acdc(setting, tau=1.0001).kept.sum()) == 0


def test_interrupted_and_resumed(tmp_path):
    whole = acdc(Network(GRAPH, 2), tau=0.02)
    setting = Network(GRAPH, 2)
    real, calls = setting.scores, []

    def stop(kept, grad=False):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(kept)

    setting.scores = stop
    with pytest.warns(UserWarning, match="interrupted: .* edges are decided.*resume="):
        part = acdc(setting, tau=0.02)
    assert not part.finished
    assert bool(part.kept[~part.done].all())
    assert part.change[~part.done].isnan().all()
    assert "decided" in repr(part)
    part.save(tmp_path / "part.safetensors")
    rest = acdc(Network(GRAPH, 2), tau=0.02, resume=tmp_path / "part.safetensors")
    assert rest.finished
    assert torch.equal(rest.kept, whole.kept)
    torch.testing.assert_close(rest.change, whole.change)
    assert torch.equal(acdc(Network(GRAPH, 2), tau=0.02, resume=rest).kept, whole.kept)
    with pytest.raises(ResultError, match="another sweep: its tau is 0.02"):
        acdc(Network(GRAPH, 2), tau=0.03, resume=part)
    with pytest.raises(ResultError, match="full baseline"):
        acdc(Network(GRAPH, 3, metric="score"), tau=0.02, signed=True,
             resume=acdc(Network(GRAPH, 2, metric="score"), tau=0.02, signed=True))  # fmt: skip


def test_record(tmp_path):
    record = acdc(Network(GRAPH, 0), tau=0.02)
    loaded = AcdcRecord.load(record.save(tmp_path / "acdc.safetensors"))
    assert loaded.graph.edges == GRAPH.edges
    assert torch.equal(loaded.mask, record.mask)
    frame = loaded.to_frame()
    assert list(frame.columns) == ["edge", "change", "kept", "run", "done", "metric"]
    assert frame["edge"][0] == "m1->logits"
    assert frame["kept"].sum() == int(record.mask.sum())
    values = loaded.values
    assert torch.equal(values.isnan(), ~GRAPH.full)
    assert float(values[GRAPH.mask(["m1->logits"])]) == float(record.change[0])
    axes = record.plot().axes[0]
    assert "removed" not in axes.get_xlabel()
    assert "kept at tau 0.02" in repr(loaded)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1.0}, "tau=-1.0; expected a change"),
        ({"order": "best"}, "order='best'; expected 'latest'"),
        ({"batch": 0}, "batch=0; expected a positive number"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(RunError, match=message):
        acdc(Network(GRAPH, 0), **options)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", ["hist", "xproportion"])
def test_cases_edge_by_edge(name, ablation):
    """On a real model speculation finds the true circuit, as single steps do, with fewer rounds."""
    case = load_case(name, torch.float64)
    setting = Setting.of(
        case.model(), case.prompts(), metric=case.as_metric("l2"), ablation=ablation
    )
    one, many = (acdc(setting, batch=batch) for batch in (1, "auto"))
    assert set(setting.graph.names(many.mask)) == case.edges(ablation)
    assert torch.equal(one.kept, many.kept)
    torch.testing.assert_close(one.change, many.change, rtol=1e-9, atol=1e-12)
    assert many.rounds < one.rounds
