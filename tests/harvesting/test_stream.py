"""The rows of a harvest without a store: each once an epoch, mixed across documents, and resumable."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import DataLoader

import interp
from interp.errors import BudgetError, CorpusError, RunError
from interp.harvesting import stream as module
from interp.harvesting.reservoir import Reservoir
from interp.store.rows import Rows


@pytest.fixture(scope="module")
def source(demo, corpus):
    return interp.stream(demo, corpus, ["L1.mlp", "L2.z"], batch=4, buffer=1500)


def keys(rows: Rows) -> torch.Tensor:
    return rows.document * 1000 + rows.position


def test_in_order_they_are_the_rows_of_a_store(demo, corpus, source, tmp_path):
    store = interp.harvest(
        demo, corpus, ["L1.mlp", "L2.z"], tmp_path / "s", batch=4, dtype="float32", progress=False
    )
    got, want = Rows.cat(list(source.batches(300, shuffle=None))), store.rows(slice(None))
    assert source.sites == store.sites
    assert source.pairs == store.pairs
    for site in store.sites:
        assert torch.equal(got[site], want[site])
    for name in ("tokens", "document", "position"):
        assert torch.equal(getattr(got, name), getattr(want, name))


def test_each_row_once_an_epoch_and_each_epoch_another_order(source):
    ordered = Rows.cat(list(source.batches(300, shuffle=None)))
    two = Rows.cat(list(source.batches(300, epochs=2, seed=1)))
    n = len(ordered)
    assert len(two) == 2 * n
    for epoch in (two.take(slice(0, n)), two.take(slice(n, 2 * n))):
        order = torch.argsort(keys(epoch))
        assert torch.equal(keys(epoch)[order], keys(ordered).sort().values)
        found = epoch["L2.z"][order]
        assert torch.equal(found, ordered["L2.z"][torch.argsort(keys(ordered))])
    assert not torch.equal(keys(two)[:n], keys(two)[n:])


def test_batches_are_mixed_across_documents(demo, corpus, source):
    """As many documents in a batch as a random draw from the buffer would have; in order, far fewer."""
    batches = list(source.batches(100, seed=0))[2:8]
    shuffled = torch.tensor([len(b.document.unique()) for b in batches]).float().mean()
    ordered = list(source.batches(100, shuffle=None))[2:8]
    straight = torch.tensor([len(b.document.unique()) for b in ordered]).float().mean()
    assert shuffled > 0.6 * 1500 / 85  # a document has about 85 tokens
    assert straight < 0.4 * shuffled
    same = torch.cat([(b.document[1:] == b.document[:-1]).float() for b in batches]).mean()
    assert same < 3 / (1500 / 85)  # neighbours share their document as often as chance has it


def test_the_same_seed_gives_the_same_rows_and_another_others(source):
    one, two, other = (next(source.batches(64, seed=s)) for s in (5, 5, 6))
    assert torch.equal(keys(one), keys(two))
    assert torch.equal(one["L2.z"], two["L2.z"])
    assert not torch.equal(keys(one), keys(other))


@pytest.mark.parametrize("shuffle", ["rows", None])
@pytest.mark.parametrize("after", [1, 7, 30])
def test_it_goes_on_exactly_where_it_was(source, shuffle, after):
    batches = source.batches(256, seed=2, shuffle=shuffle, epochs=2)
    for _ in range(after):
        next(batches)
    state = batches.state_dict()
    json.dumps(state["position"])
    rest = list(batches)
    again = source.batches(256, seed=2, shuffle=shuffle, epochs=2)
    next(again)
    again.load_state_dict(state)
    resumed = list(again)
    assert len(resumed) == len(rest)
    for a, b in zip(rest, resumed, strict=True):
        assert torch.equal(keys(a), keys(b))
        assert torch.equal(a["L1.mlp_out"], b["L1.mlp_out"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_a_failure_on_the_way_loses_no_row(source, monkeypatch, error):
    want, real, calls = Rows.cat(list(source.batches(256, seed=2))), module.capture, 0

    def failing(*args, **options):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(module, "capture", failing)
    batches = source.batches(256, seed=2)
    with pytest.raises(error):
        next(batches)
    got = Rows.cat(list(batches))
    assert torch.equal(keys(got), keys(want))
    assert torch.equal(got["L2.z"], want["L2.z"])


def test_a_state_of_another_stream_is_refused(demo, source):
    state = source.batches(64, seed=2).state_dict()
    with pytest.raises(RunError, match="seed 2, and these have 3"):
        source.batches(64, seed=3).load_state_dict(state)
    other = interp.stream(
        demo, interp.corpora.demo(61, seed=3), ["L1.mlp", "L2.z"], batch=4, buffer=1500
    )
    with pytest.raises(RunError, match="of batches with corpus"):
        other.batches(64, seed=2).load_state_dict(state)


def test_in_order_a_batch_may_be_larger_than_the_buffer(demo, corpus):
    source = interp.stream(demo, corpus, "L1.mlp_out", tokens=1000, buffer=100)
    assert [len(b) for b in source.batches(600, shuffle=None)] == [600, 400]


def test_tokens_bound_an_epoch_and_drop_last_the_last_batch(demo, corpus):
    source = interp.stream(demo, corpus, "L1.mlp_out", tokens=1000, buffer=500)
    assert [len(b) for b in source.batches(300)] == [300, 300, 300, 100]
    assert [len(b) for b in source.batches(300, drop_last=True)] == [300, 300, 300]
    endless = source.batches(400, epochs=None)
    assert sum(len(next(endless)) for _ in range(6)) == 2000


def test_a_second_pass_over_the_same_batches_is_refused(source):
    batches = source.batches(512, seed=1)
    state, n = batches.state_dict(), len(list(batches))
    with pytest.raises(RunError, match="read to their end: make new ones"):
        list(batches)
    batches.load_state_dict(state)
    assert len(list(batches)) == n


def test_it_is_a_torch_dataset_in_this_process(source):
    loader = DataLoader(source.batches(256, seed=1), batch_size=None)
    want = list(source.batches(256, seed=1))
    for a, b in zip(loader, want, strict=True):
        assert torch.equal(a["L1.mlp_out"], b["L1.mlp_out"])


def test_dtype_is_a_cast(demo, corpus):
    one, two = (
        next(interp.stream(demo, corpus, "L1.mlp_out", dtype=d, buffer=600).batches(64))[
            "L1.mlp_out"
        ]
        for d in (None, "bfloat16")
    )
    assert one.dtype == torch.float32
    assert torch.equal(one.bfloat16(), two)


@pytest.mark.bad_input
def test_what_cannot_be_is_refused(demo, corpus, source, monkeypatch):
    with pytest.raises(RunError, match="batches of 2000 rows from a buffer of 1500"):
        source.batches(2000)
    with pytest.raises(RunError, match="buffer=0; expected a whole number more than 0"):
        interp.stream(demo, corpus, "L1.mlp", buffer=0)
    for wrong in ({"size": "a"}, {"size": 0}, {"seed": "x"}, {"epochs": 1.5}):
        with pytest.raises(RunError, match="expected a whole number"):
            source.batches(**{"size": 10, **wrong})
    with pytest.raises(RunError, match="computes in float64: say dtype='float32'"):
        interp.stream(interp.load("demo", dtype="float64", check=False), corpus, "L1.mlp")
    with pytest.raises(CorpusError, match="no token to keep"):
        next(interp.stream(demo, [[demo.tokens.bos_id]], "L1.mlp_out").batches(1))
    once = interp.stream(demo, iter(list(corpus.documents())), "L1.mlp_out", buffer=500)
    with pytest.raises(CorpusError, match="once"):
        list(once.batches(400, epochs=2))
    monkeypatch.setattr(module, "available", lambda device: 1000)
    with pytest.raises(BudgetError, match=r"a buffer of 1,500 rows takes .* are\s+free"):
        source.batches(10)


@pytest.mark.bad_input
def test_blocks_are_for_stores(source):
    with pytest.raises(RunError, match="shuffle='blocks'; expected 'rows' or None"):
        source.batches(10, shuffle="blocks")


def test_a_reservoir_draws_each_row_as_often():
    """Without replacement, and uniformly: chi-square over which of 40 rows come in a draw of 10."""
    room = Reservoir({"x": ()}, 40, torch.float32, device=torch.device("cpu"))
    draw, counts = torch.Generator().manual_seed(0), torch.zeros(40)
    for _ in range(600):
        room.n = 0
        numbers = torch.arange(40)
        room.add(Rows({"x": numbers.float()}, numbers, numbers, numbers))
        first, second = room.draw(10, draw), room.draw(30, draw)
        assert len({*first.document.tolist(), *second.document.tolist()}) == 40
        assert torch.equal(first["x"].long(), first.document)
        counts[first.document] += 1
    chi = float(((counts - 150) ** 2 / (150 * 0.75)).sum())
    assert chi < 70  # 39 degrees of freedom; 1 in 1000 lies above 72
