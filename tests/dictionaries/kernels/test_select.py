"""Selection in chunks is the dense selection, also by screening, also where screening is set a trap."""

from __future__ import annotations

import pytest
import torch

from interp.dictionaries.kernels import batch, screening, select_batchtopk, select_topk
from interp.dictionaries.kernels.screening import Screen, rounded_down
from interp.dictionaries.kernels.topk import kth_largest
from interp.errors import DictionaryError

K = 8


def random(d=24, m=1100, rows=70, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, d, generator=g, dtype=torch.float64)
    enc = torch.randn(m, d, generator=g, dtype=torch.float64)
    return x.to(dtype), enc.to(dtype), (torch.randn(m, generator=g) / 2).to(dtype)


def coherent(m=1100, rows=6, half=63):
    """All rounding errors of the best point one way; decoys are exact, and larger than the rounded best."""
    low = 1 + 2**-8 - 2**-12  # bfloat16 makes it 1
    x = torch.cat([torch.full((rows, half), low), torch.ones(rows, half)], 1)
    enc = torch.full((m, 2 * half), 0.25)
    enc[100:120] = torch.tensor([low] * half + [0.0] * half)
    enc[700:720] = torch.tensor([0.0] * half + [1.25] + [1.0] * (half - 1))
    assert enc[700] @ x[0] < enc[100] @ x[0]
    return x, enc, torch.zeros(m)


def case(name):
    x, enc, b = random()
    if name == "near ties":
        enc, b = enc[0] + 1e-6 * enc, 1 + 1e-6 * b
    elif name == "heavy tails":
        x, enc = x.sign() * (2 * x.abs()).exp(), enc.sign() * (2 * enc.abs()).exp()
    elif name == "huge":
        x, enc, b = x * 1e9, enc * 1e6, b * 1e12
    elif name == "tiny":
        x, enc, b = x * 1e-9, enc * 1e-6, b * 1e-14
    elif name == "unequal rows":
        x, enc = (
            x * torch.logspace(-6, 6, len(x))[:, None],
            enc * torch.logspace(-3, 3, len(enc))[:, None],
        )
    elif name == "one exact latent":
        enc[::7] = enc[::7].bfloat16().float()
    elif name == "large bias":
        b = b * 100 + 50
    elif name == "few positive":
        b = b - 14
    elif name == "zero rows":
        x[::2] = 0
        b[:] = 0
    elif name == "all equal":
        enc[:] = enc[0]
        b[:] = 0.3
    elif name == "coherent":
        return coherent()
    return x, enc, b


CASES = ["random", "near ties", "heavy tails", "huge", "tiny", "unequal rows", "one exact latent",
         "large bias", "few positive", "zero rows", "all equal", "coherent"]  # fmt: skip


def rounding(x, enc, b):
    """What float32 dot products may be off by."""
    x, enc, b = x.double(), enc.double(), b.double()
    return (x.shape[1] + 2) * 2**-23 * (x.norm(dim=1)[:, None] * enc.norm(dim=1) + b.abs())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [None, 1, 16, 1000])
def test_topk_is_the_dense_one(dtype, chunk):
    x, enc, b = random(dtype=dtype)
    codes = select_topk(x, enc, b, K, chunk=chunk)
    assert codes.offsets.tolist() == list(range(0, K * len(x), K))
    acts = torch.addmm(b, x, enc.T).relu()
    values, features = acts.topk(K)
    expected = torch.zeros_like(acts).scatter(1, features, values)
    if dtype == torch.bfloat16:  # has ties at the k-th place, and sums that depend on the chunk
        got = codes.values.view(len(x), K).sort(1, descending=True).values
        assert torch.allclose(got, values, rtol=2**-6)
    else:
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
        assert (codes.dense() - expected).abs().max() < tolerance


@pytest.mark.parametrize("name", CASES)
def test_bounds_hold_for_every_entry(name):
    x, enc, b = case(name)
    screen = Screen(x, enc, b, len(x))
    bits = screen.bounds(slice(None))
    exact = x.double() @ enc.double().T + b.double()
    singles = torch.cartesian_prod(torch.arange(len(x)), torch.arange(len(enc)))
    single = screen.exact(singles[:, 0], singles[:, 1], slice(None)).view_as(exact)
    for values in (exact.float(), single):
        assert (bits >= rounded_down(values))[values > 0].all()
    assert ((single - exact).abs() <= rounding(x, enc, b)).all()


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("name", CASES)
def test_screening_finds_the_exact_selection(name, chunk):
    x, enc, b = case(name)
    codes = select_topk(x, enc, b, K, screen=True, chunk=chunk)
    exact = (x.double() @ enc.double().T + b.double()).relu()
    slack = rounding(x, enc, b)
    got = codes.features.view(len(x), K)
    values = codes.values.view(len(x), K)
    assert ((values - exact.gather(1, got)).abs() <= slack.gather(1, got)).all()
    best = exact.topk(K, 1).values
    assert (values.sort(1, descending=True).values - best).abs().amax() <= slack.amax()
    least = best[:, -1:]
    sure = (exact > least + 2 * slack) & (exact > slack)
    assert (codes.dense() > 0)[sure].all()  # whatever is clearly among the best is there


def test_bfloat16_alone_falls_for_the_trap():
    x, enc, b = coherent()
    half = (x.bfloat16() @ enc.bfloat16().T).float().topk(K).indices
    assert (half >= 700).all()
    codes = select_topk(x, enc, b, K, screen=True)
    assert ((codes.features >= 100) & (codes.features < 120)).all()


def test_rows_where_bounds_say_nothing_are_computed_in_full(monkeypatch):
    x, enc, b = case("near ties")
    calls = []
    addmm = torch.addmm
    monkeypatch.setattr(
        screening.torch, "addmm", lambda *a, **k: calls.append(len(a[1])) or addmm(*a, **k)
    )
    select_topk(x, enc, b, K, screen=True)
    assert sum(calls) > 0
    calls.clear()
    select_topk(*random(), K, screen=True)
    assert sum(calls) == 0


def test_nan_is_not_hidden_by_screening():
    x, enc, b = random()
    x[3, 2] = torch.nan
    codes = select_topk(x, enc, b, K, screen=True)
    assert codes.values.view(len(x), K)[3].isnan().any()
    assert not codes.values.view(len(x), K)[4].isnan().any()


@pytest.mark.parametrize("select", [select_topk, select_batchtopk])
def test_screening_is_refused_where_it_is_not_proven(select):
    x, enc, b = random(dtype=torch.float64)
    with pytest.raises(DictionaryError, match="screening is proven for float32 on a CPU"):
        select(x, enc, b, 4, screen=True)


def dense_batchtopk(x, enc, b, total):
    acts = torch.addmm(b, x, enc.T).relu()
    values, places = acts.flatten().topk(min(total, acts.numel()), sorted=False)
    return torch.zeros_like(acts).flatten().index_put((places,), values).view_as(acts)


@pytest.mark.parametrize("screen", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 9, 1000])
@pytest.mark.parametrize(
    "name", [c for c in CASES if c not in ("near ties", "all equal", "coherent")]
)
def test_batchtopk_is_the_dense_one(name, chunk, screen):
    x, enc, b = case(name)
    if chunk == 1:
        x = x[:12]
    total = K * len(x)
    codes = select_batchtopk(x, enc, b, total, chunk=chunk, screen=screen)
    expected = dense_batchtopk(x, enc, b, total)
    slack = 2 * rounding(x, enc, b)
    assert (codes.dense() - expected).abs().le(slack).float().mean() > 0.9999
    assert codes.values.min() > 0
    assert len(codes.values) == min(total, int((expected > 0).sum()))
    rows, features = codes.rows(), codes.features
    assert torch.equal(rows * len(enc) + features, (rows * len(enc) + features).sort().values)


@pytest.mark.parametrize("screen", [False, True])
def test_rows_in_which_all_is_active_take_all_entries(screen):
    x, enc, b = random(rows=64)
    x[5] *= 1000  # nearly every large value of the batch
    codes = select_batchtopk(x, enc, b, 256, chunk=8, screen=screen)
    assert torch.allclose(codes.dense(), dense_batchtopk(x, enc, b, 256), atol=2e-2)
    assert int(codes.counts()[5]) > 250


@pytest.mark.parametrize("screen", [False, True])
def test_a_first_chunk_that_misleads_costs_time_but_no_entry(screen, monkeypatch):
    x, enc, b = random(rows=64)
    x[::8] *= 50  # the first chunk is every eighth row
    reached = []
    source = batch._Screened if screen else batch._Plain
    plain = source.reaching
    monkeypatch.setattr(
        source, "reaching", lambda s, i, least: reached.append(float(least)) or plain(s, i, least)
    )
    codes = select_batchtopk(x, enc, b, 8 * 900, chunk=8, screen=screen)
    assert len(codes.values) == 8 * 900
    assert torch.allclose(codes.dense(), dense_batchtopk(x, enc, b, 8 * 900), atol=1e-3)
    assert len(reached) in (8, 16)


def test_ties_at_the_threshold_keep_the_first_ones():
    enc, b = torch.eye(4), torch.zeros(4)
    x = torch.tensor([[1.0, 2, 1, 0], [1, 0, 3, 1], [1, 1, 1, 1]])
    codes = select_batchtopk(x, enc, b, 4)
    assert codes.dense().tolist() == [[1, 2, 1, 0], [0, 0, 3, 0], [0, 0, 0, 0]]
    assert len(codes.values) == 4


def test_fewer_positive_ones_than_asked_for_are_all_kept():
    enc, b = torch.eye(3), torch.zeros(3)
    codes = select_batchtopk(torch.tensor([[1.0, -1, 0], [0, 0, 0], [0, 2, 0]]), enc, b, 5)
    assert codes.dense().tolist() == [[1, 0, 0], [0, 0, 0], [0, 2, 0]]
    assert codes.offsets.tolist() == [0, 1, 1]
    assert len(select_batchtopk(torch.empty(0, 3), enc, b, 5).values) == 0


@pytest.mark.parametrize("screen", [False, True])
@pytest.mark.parametrize("unequal", [1.0, 30.0])
def test_processes_agree_on_one_threshold(unequal, screen):
    """Two processes in threads: the second has larger activations, so that it has most entries."""
    from threading import Barrier, Thread

    x, enc, b = random(rows=64)
    x[32:] *= unequal
    total = 64 * K
    barrier, slots, calls = Barrier(2), [None, None], [0, 0]

    def member(rank, out):
        def kth(values, k):
            calls[rank] += 1
            slots[rank] = values
            barrier.wait(timeout=20)
            both = torch.cat(slots)
            barrier.wait(timeout=20)
            return kth_largest(both, k)

        part = x[32 * rank : 32 * rank + 32]
        out[rank] = select_batchtopk(part, enc, b, total, chunk=8, screen=screen, kth=kth)

    out = {}
    threads = [Thread(target=member, args=(rank, out)) for rank in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert calls[0] == calls[1]
    together = torch.cat([out[0].dense(), out[1].dense()])
    assert torch.allclose(together, dense_batchtopk(x, enc, b, total), atol=1e-3)
    assert len(out[0].values) + len(out[1].values) == total
