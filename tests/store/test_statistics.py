"""Statistics of a store: what float64 in two passes would say, in one pass over pieces."""

import functools

import numpy as np
import pytest
import torch

from interp.errors import BudgetError, ResultError, StoreError
from interp.store import statistics
from interp.store.moments import RowMoments
from interp.store.rows import Rows
from interp.store.statistics import Statistics
from tests.store.reading import table, write


def with_values(**tensors):
    """Rows with these activations."""
    n = len(next(iter(tensors.values())))
    named = {name.replace("L0_", "L0."): x for name, x in tensors.items()}
    base = table(n, sites={"L0.mlp_out": (1,)})
    return Rows(named, base.tokens, base.document, base.position)


@pytest.fixture
def small_pieces(monkeypatch):
    """So that a few hundred rows come in many pieces, merged over and over."""
    monkeypatch.setattr(statistics, "_PIECE", 150)


@pytest.mark.parametrize("covariance", [False, True])
def test_a_small_spread_around_a_large_mean(tmp_path, small_pieces, covariance):
    """10⁴ ± 10⁻³ in float32: sums of squares would find a variance of about ± 10."""
    g = torch.Generator().manual_seed(0)
    x = (1e4 + 1e-3 * torch.randn(701, 5, dtype=torch.float64, generator=g)).float()
    store = write(tmp_path / "s", with_values(L0_mlp_out=x), per_shard=100)
    found = store.stats(covariance=covariance)
    exact = x.double().numpy()
    assert np.allclose(found.mean["L0.mlp_out"], exact.mean(0), rtol=1e-14, atol=0)
    assert np.allclose(found.variance["L0.mlp_out"], exact.var(0, ddof=1), rtol=1e-9, atol=0)
    norms = np.sqrt((exact**2).sum(1))
    assert found.norm_mean.item() == pytest.approx(norms.mean(), rel=1e-13)
    assert found.norm_std.item() == pytest.approx(norms.std(ddof=1), rel=1e-6)
    if covariance:
        assert np.allclose(found.covariance["L0.mlp_out"], np.cov(exact.T), rtol=1e-7, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_numbers_against_numpy(tmp_path, small_pieces, dtype):
    rows = table(333, dtype=dtype)
    store = write(tmp_path / "s", rows, dtype=dtype)
    found = store.stats(covariance=True)
    assert found.sites == rows.sites
    assert found.count == 333
    for i, site in enumerate(rows.sites):
        x = rows[site].double().numpy()
        flat, norms = x.reshape(333, -1), np.linalg.norm(x.reshape(333, -1), axis=1)
        assert found.mean[site].shape == x.shape[1:]
        assert np.allclose(found.mean[site], x.mean(0), rtol=1e-12, atol=1e-15)
        assert np.allclose(found.variance[site], x.var(0, ddof=1), rtol=1e-12)
        assert np.allclose(found.covariance[site], np.cov(flat.T), rtol=1e-10, atol=1e-13)
        assert found.norm_mean[i].item() == pytest.approx(norms.mean(), rel=1e-12)
        assert found.norm_std[i].item() == pytest.approx(norms.std(ddof=1), rel=1e-10)
        assert found.norm_max[i].item() == norms.max()
        assert found.rms[i].item() == pytest.approx(np.sqrt((flat**2).mean()), rel=1e-12)
        for q in (0.01, 0.5, 0.9, 0.999):
            exact = np.quantile(norms, q, method="inverted_cdf")
            assert found.norm_quantile(q)[i].item() == pytest.approx(exact, rel=0.09)
        assert found.norm_quantile(1.0)[i].item() == norms.max()


def test_pieces_in_any_cut_give_the_same():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 50
    whole, *cut = (RowMoments.of(part, covariance=True) for part in (x, *x.split([1, 2, 197, 300])))
    merged = functools.reduce(RowMoments.merged, cut)
    assert merged.rows.count == whole.rows.count == 500
    assert torch.allclose(merged.rows.mean, whole.rows.mean, rtol=1e-14)
    assert torch.allclose(merged.cross.products, whole.cross.products, rtol=1e-11)
    assert torch.allclose(merged.cross.products / 499, torch.cov(x.T), rtol=1e-11)
    assert torch.equal(merged.histogram, whole.histogram)


def test_massive_and_zero_rows_are_seen(tmp_path):
    x = torch.ones(200, 4)
    x[17] = 0
    x[90] = 5000
    found = write(tmp_path / "s", with_values(L0_mlp_out=x)).stats()
    assert found.norm_max.item() == 10_000
    assert found.norm_quantile(0.5).item() == pytest.approx(2, rel=0.09)
    assert found.norm_histogram[0, 0] == 1  # no norm at all
    assert found.norm_histogram.sum() == 200


def test_some_sites_and_some_rows(tmp_path, small_pieces):
    rows = table(400)
    store = write(tmp_path / "s", rows)
    one, two = store.stats("L1.z", rows=100, seed=3), store.stats("L1.z", rows=100, seed=3)
    assert one.sites == ("L1.z",)
    assert one.count == 100
    assert torch.equal(one.mean["L1.z"], two.mean["L1.z"])
    assert not torch.equal(one.mean["L1.z"], store.stats(rows=100, seed=4).mean["L1.z"])
    drawn = next(store.batches(100, seed=3))  # the same draw
    assert torch.allclose(one.mean["L1.z"], drawn["L1.z"].double().mean(0), rtol=1e-12, atol=1e-14)
    assert torch.allclose(
        store.stats(rows=400).mean["L1.z"], store.stats().mean["L1.z"], atol=1e-14
    )


def test_saved_and_loaded_it_is_the_same(tmp_path):
    found = write(tmp_path / "s", table(60)).stats(covariance=True)
    again = Statistics.load(found.save(tmp_path / "stats.safetensors"))
    assert (again.sites, again.count) == (found.sites, found.count)
    for name in ("mean", "variance", "covariance"):
        one, two = getattr(found, name), getattr(again, name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[site], two[site]) for site in one)
    assert torch.equal(again.norm_histogram, found.norm_histogram)
    assert again.provenance == found.provenance
    assert again.provenance.weights_hash == "a" * 64
    assert again.provenance.call["verb"] == "stats"


def test_table_and_figure(tmp_path):
    found = write(tmp_path / "s", table(60)).stats()
    frame = found.to_frame()
    assert list(frame["site"]) == ["L0.mlp.input", "L1.z"]
    assert list(frame["d"]) == [6, 8]
    assert frame["norm_max"].tolist() == found.norm_max.tolist()
    assert (frame["mean_norm"] < frame["norm_mean"]).all()
    figure = found.plot(title="Norms")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["L0.mlp.input", "L1.z"]
    assert sum(axes.patches[0].get_data().values) == pytest.approx(1)
    assert repr(found).startswith("Statistics(60 rows: L0.mlp.input norm 2.")


def test_a_single_row_has_no_variance(tmp_path):
    found = write(tmp_path / "s", table(1)).stats(covariance=True)
    assert found.variance["L1.z"].isnan().all()
    assert found.covariance["L1.z"].isnan().all()
    assert found.norm_std.isnan().all()
    assert found.norm_mean.isfinite().all()


def test_what_has_no_statistics_says_so(tmp_path, monkeypatch):
    store = write(tmp_path / "s", table(60))
    with pytest.raises(
        StoreError, match=r"statistics of 61 rows; this store has 60, take 1 or more"
    ):
        store.stats(rows=61)
    with pytest.raises(StoreError, match=r"lacks 'L9.z'"):
        store.stats("L9.z")
    with pytest.raises(StoreError, match=r"statistics of 0 rows; this store has 0"):
        write(tmp_path / "none", table(40), skip=(0,)).stats()
    with pytest.raises(ResultError, match=r"q=2.0; expected a share from 0 to 1"):
        store.stats().norm_quantile(2.0)
    x = torch.ones(60, 4)
    x[33, 2] = torch.inf
    broken = write(tmp_path / "t", with_values(L0_mlp_out=x))
    with pytest.raises(
        StoreError, match=r"L0.mlp_out of .* is not finite at document 3, position 4"
    ):
        broken.stats()
    monkeypatch.setattr(statistics, "available", lambda device: 1000)
    with pytest.raises(
        BudgetError, match=r"the covariances of L0.mlp.input, L1.z take .* are free"
    ):
        store.stats(covariance=True)
    assert store.stats().count == 60


def test_norms_beyond_the_bins_are_no_made_up_numbers(tmp_path):
    """Below 2^-64 a norm counts as 0, above 2^64 as the greatest there is."""
    huge = torch.full((40, 4), 1e30)
    found = write(tmp_path / "huge", with_values(L0_mlp_out=huge)).stats()
    assert found.norm_quantile(0.5).item() == found.norm_max.item() == huge[0].double().norm()
    zeros = torch.cat([torch.zeros(30, 4), torch.ones(10, 4)])
    found = write(tmp_path / "zeros", with_values(L0_mlp_out=zeros)).stats()
    assert found.norm_quantile(0.5).item() == 0
    assert found.norm_quantile(0.9).item() == pytest.approx(2, rel=0.09)


@pytest.mark.parametrize(
    ("dtype", "told"), [("float16", "overflow where"), ("float32", "The model itself")]
)
def test_what_is_not_finite_comes_with_a_remedy_that_fits(tmp_path, dtype, told):
    x = torch.zeros(20, 4, dtype=getattr(torch, dtype))
    x[7, 1] = torch.inf
    with pytest.raises(StoreError, match=rf"document 0, position 8: .*{told}"):
        write(tmp_path / "s", with_values(L0_mlp_out=x), dtype=dtype).stats()
