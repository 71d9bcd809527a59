"""Batches: every row once, in an order that a number can be resumed from, ahead of who reads."""

import gc
import json
import pickle
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from interp.errors import StoreError
from interp.store import batches as module
from interp.store.rows import Rows
from interp.store.store import ActivationStore
from tests.store.reading import same, table, write

N = 1000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = table(N)
    return rows, write(tmp_path_factory.mktemp("store") / "s", rows, per_shard=96)


def numbers(batch):
    """Row numbers, which the columns give away."""
    return batch.document * 10 + batch.position - 1


def order(batches):
    return torch.cat([numbers(batch) for batch in batches])


@pytest.mark.parametrize("shuffle", ["rows", "blocks", None])
@pytest.mark.parametrize("size", [32, 250, 1000, 3000])
def test_every_row_comes_once_in_each_epoch(made, shuffle, size):
    rows, store = made
    batches = list(store.batches(size, shuffle=shuffle, epochs=2, seed=4))
    per_epoch = len(batches) // 2
    first, second = batches[:per_epoch], batches[per_epoch:]
    for epoch in (first, second):
        assert torch.equal(order(epoch).sort().values, torch.arange(N))
        assert {len(batch) for batch in epoch[:-1]} <= {size}
        for batch in epoch:
            assert same(batch, rows.take(numbers(batch)))
    assert torch.equal(order(first), order(second)) == (shuffle is None)


def test_lengths(made):
    _, store = made
    for options in ({}, {"drop_last": True}, {"epochs": 3}, {"epochs": 3, "drop_last": True}):
        batches = store.batches(96, **options)
        count = len(batches)
        assert (
            len(list(batches))
            == count
            == (N // 96 + (not options.get("drop_last"))) * options.get("epochs", 1)
        )
    whole = store.batches(96, drop_last=True, epochs=2)
    assert {len(batch) for batch in whole} == {96}
    with pytest.raises(TypeError, match="have no end"):
        len(store.batches(96, epochs=None))


def test_without_end_every_epoch_has_an_order_of_its_own(made):
    _, store = made
    batches = store.batches(500, epochs=None)
    epochs = [order([next(batches), next(batches)]) for _ in range(4)]
    for i, one in enumerate(epochs):
        assert torch.equal(one.sort().values, torch.arange(N))
        assert all((one == other).float().mean() < 0.02 for other in epochs[:i])


def test_rows_are_really_mixed(made):
    """A batch of each tenth of the store has its share, and neighbours rarely meet."""
    _, store = made
    for batch in store.batches(250, seed=1):
        shares = torch.bincount(numbers(batch) // 100, minlength=10)
        assert ((shares - 25) ** 2 / 25).sum() < 33.7  # p = 1e-4 at 9 degrees of freedom
    together = (order(store.batches(250, seed=1)).diff().abs() == 1).sum()
    assert together < 12  # 2 on average


def test_blocks_stay_together_and_begin_elsewhere_in_each_epoch(made):
    _, store = made
    batches = store.batches(100, shuffle="blocks", block=20, epochs=2)
    first, second = order(next(batches) for _ in range(10)), order(batches)
    for epoch in (first, second):
        runs = (epoch.diff() % N == 1).sum()
        assert N - 2 * (N // 20) <= runs < N
        starts = epoch.view(50, 20)[:, 0]
        assert (starts.diff() == 20).sum() < 10
    assert {int(x) % 20 for x in first.view(50, 20)[:, 0]} == {int(first[0]) % 20}
    assert int(first[0]) % 20 != int(second[0]) % 20  # seed 0


def test_blocks_that_do_not_divide_the_store(made):
    _, store = made
    for seed in range(5):
        found = order(store.batches(64, shuffle="blocks", block=48, seed=seed))
        assert torch.equal(found.sort().values, torch.arange(N))


def test_reading_ahead_changes_nothing(made):
    _, store = made
    for prefetch in (0, 1, 5, 50):
        batches = list(store.batches(96, seed=2, prefetch=prefetch))
        for one, other in zip(batches, store.batches(96, seed=2), strict=True):
            assert same(one, other)


def test_parts_one_after_another_are_the_batch(made):
    _, store = made
    for shuffle in ("rows", "blocks", None):
        whole = store.batches(96, shuffle=shuffle, seed=3)
        parts = [store.batches(96, shuffle=shuffle, seed=3, part=(rank, 3)) for rank in range(3)]
        for batch, *shares in zip(whole, *parts, strict=True):
            assert same(Rows.cat(shares), batch)
            if len(batch) == 96:
                assert {len(share) for share in shares} == {32}


@pytest.mark.parametrize("shuffle", ["rows", "blocks", None])
@pytest.mark.parametrize("k", [0, 1, 10, 11, 25])
def test_a_position_saved_and_restored_is_exact(made, shuffle, k):
    _, store = made
    options = {"seed": 5, "shuffle": shuffle, "epochs": 3}
    batches = store.batches(96, **options)
    for _ in range(k):
        next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    rest = list(batches)
    again = ActivationStore.open(store.folder).batches(96, **options, prefetch=0)
    again.load_state_dict(state)
    for one, other in zip(rest, again, strict=True):
        assert same(one, other)
    batches.load_state_dict(state)  # and back, in the same iterator
    assert len(list(batches)) == len(rest)


def test_a_finished_reader_says_so(made):
    """A second ``for`` would find nothing, and say nothing."""
    _, store = made
    batches = store.batches(400)
    n = len(list(batches))
    with pytest.raises(StopIteration):
        next(batches)
    with pytest.raises(StoreError, match="read to their end: make new ones"):
        list(batches)
    batches.load_state_dict(batches.state_dict())
    assert list(batches) == []  # resumed at the end: nothing is left, as it was saved
    batches.load_state_dict({**batches.state_dict(), "step": 0})
    assert len(list(batches)) == n


def test_a_foreign_position_is_refused_by_name(made, tmp_path):
    _, store = made
    state = store.batches(96, seed=5).state_dict()
    for options, told in (
        ({"size": 100, "seed": 5}, r"saved with size 96, here 100\."),
        ({"size": 96, "seed": 6}, r"saved with seed 5, here 6\."),
        ({"size": 96, "seed": 5, "shuffle": None}, r"saved with shuffle 'rows', here None\."),
        ({"size": 96, "seed": 5, "drop_last": True}, r"saved with drop_last False, here True"),
    ):
        size = options.pop("size")
        with pytest.raises(StoreError, match=told):
            store.batches(size, **options).load_state_dict(state)
    other = write(tmp_path / "s", table(N), per_shard=96, seed=9)
    with pytest.raises(StoreError, match=r"saved with another store\. Make the batches"):
        other.batches(96, seed=5).load_state_dict(state)
    part = write(tmp_path / "t", table(N), per_shard=96, skip=(1,))
    with pytest.raises(StoreError, match=r"other shards of .*; n 1000, here 904"):
        part.batches(96, seed=5).load_state_dict(state)
    twin = write(tmp_path / "u", table(N), per_shard=96, skip=(2,))  # as many rows, other ones
    with pytest.raises(StoreError, match=r"saved with other shards of this unfinished store\."):
        twin.batches(96).load_state_dict(part.batches(96).state_dict())
    part.batches(96).load_state_dict(part.batches(96).state_dict())
    with pytest.raises(StoreError, match=r"saved with step None"):
        store.batches(96, seed=5).load_state_dict({**state, "step": None})


def test_a_position_is_every_ranks(made):
    _, store = made
    one, two = (store.batches(96, part=(rank, 2)) for rank in range(2))
    next(one), next(two)
    assert one.state_dict() == two.state_dict()


def test_sites_dtype_and_device(made):
    rows, store = made
    batch = next(store.batches(64, sites="L1.z", dtype=torch.float64, device="cpu"))
    assert batch.sites == ("L1.z",)
    assert batch["L1.z"].dtype is torch.float64
    assert torch.equal(batch["L1.z"], rows["L1.z"][numbers(batch)].double())
    assert batch.tokens.dtype is torch.int32


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_data_loader_workers_share_out_the_batches(made, workers):
    _, store = made
    batches = store.batches(96, epochs=2, seed=6)
    assert isinstance(batches, IterableDataset)
    loader = DataLoader(batches, batch_size=None, num_workers=workers)
    assert len(loader) == 22
    seen = list(loader)
    for one, other in zip(seen, store.batches(96, epochs=2, seed=6), strict=True):
        assert same(one, other)


def test_workers_go_on_from_a_restored_position(made):
    _, store = made
    batches = store.batches(96)
    next(batches)
    rest = store.batches(96)
    rest.load_state_dict(batches.state_dict())
    seen = list(DataLoader(rest, batch_size=None, num_workers=2))
    for one, other in zip(seen, batches, strict=True):
        assert same(one, other)


def test_a_copy_stands_where_the_original_stood(made):
    _, store = made
    batches = store.batches(96)
    next(batches)
    copy = pickle.loads(pickle.dumps(batches))  # as a DataLoader that spawns its workers does
    assert same(next(copy), next(batches))


def reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("interp-batches")]


def wait_for_none():
    gc.collect()
    end = time.monotonic() + 5
    while reading_threads() and time.monotonic() < end:
        time.sleep(0.01)
    return not reading_threads()


def test_the_thread_ends_with_its_reader(made):
    _, store = made
    assert wait_for_none()
    batches = store.batches(96)
    next(batches)
    assert len(reading_threads()) == 1
    batches.close()
    assert wait_for_none()
    assert torch.equal(order([next(batches)]), order([list(store.batches(96))[1]]))
    del batches  # dropped in the middle
    assert wait_for_none()
    list(store.batches(96))  # read to the end
    assert wait_for_none()
    for _ in store.batches(96):
        break
    assert wait_for_none()


def test_an_error_of_the_thread_comes_out_where_the_batch_is_missing(tmp_path):
    store = write(tmp_path / "s", table(400), per_shard=100)
    path = store.folder / "000002.safetensors"
    content = path.read_bytes()
    path.unlink()
    batches = store.batches(100, shuffle=None)
    assert len([next(batches), next(batches)]) == 2
    for _ in range(2):
        with pytest.raises(StoreError, match=r"000002.*is missing"):
            next(batches)
    assert batches.state_dict()["step"] == 2
    path.write_bytes(content)  # made good: goes on where it stood
    assert order(batches).tolist() == list(range(200, 400))
    assert wait_for_none()


def test_only_a_few_batches_are_read_ahead(made, monkeypatch):
    _, store = made
    read = []
    real = module.Order.rows
    monkeypatch.setattr(
        module.Order, "rows", lambda self, step, part: read.append(step) or real(self, step, part)
    )
    batches = store.batches(32, prefetch=3)
    next(batches)
    time.sleep(0.1)
    assert read == [0, 1, 2, 3]
    batches.close()


@pytest.mark.bad_input
def test_options_out_of_range(made, tmp_path):
    _, store = made
    for options, told in (
        ({"size": 0}, r"size=0; expected a whole number, 1 or more"),
        ({"size": 2.5}, r"size=2.5; expected a whole number"),
        ({"size": 8, "epochs": 0}, r"epochs=0; expected a whole number, 1 or more"),
        ({"size": 8, "prefetch": -1}, r"prefetch=-1; expected how many batches"),
        ({"size": 8, "shuffle": "row"}, r"shuffle='row'; expected 'rows', 'blocks' or None"),
        ({"size": 8, "seed": -2}, r"seed=-2; expected a whole number, 0 or more"),
        ({"size": 8, "seed": 0.5}, r"seed=0.5; expected a whole number, 0 or more"),
        ({"size": 8, "part": (0, 3)}, r"part=\(0, 3\) of batches of 8 rows; .* world divides"),
        ({"size": 8, "part": (2, 2)}, r"part=\(2, 2\)"),
        ({"size": 8, "block": 4}, r"block=4 with shuffle='rows': it is for 'blocks'"),
        ({"size": 8, "shuffle": "blocks", "block": 9}, r"block=9 with size=8: .* fewer rows"),
        ({"size": 2000, "drop_last": True}, r"has 1000 rows, which make no batch of 2000"),
    ):  # fmt: skip
        size = options.pop("size")
        with pytest.raises(StoreError, match=told):
            store.batches(size, **options)
    empty = write(tmp_path / "s", table(40), skip=(0,))
    with pytest.raises(StoreError, match=r"the store has 0 rows, which make no batch of 8\."):
        empty.batches(8)


def test_positions_of_a_large_store_cost_no_memory():
    order = module.Order.of(10**10, 4096, seed=1)
    rows = order.rows(2_000_000)
    assert len(np.unique(rows)) == 4096
    assert rows.max() > 9 * 10**9
    assert repr(module.Order.of(10, 5)).startswith("Order(n=10, size=5")
