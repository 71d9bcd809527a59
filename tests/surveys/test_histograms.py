"""Histograms: counts are exact, nothing lies outside, and quantiles are as near as they say."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from interp.errors import ResultError, RunError, SiteError
from interp.surveys import Histograms, histograms
from interp.surveys.bins import Bins
from tests.surveys.rows import CUTS, Cut, synthetic


def counted(line, edges):
    """Numbers between edges, the lower one included, each with its own comparison."""
    return [int(((line >= low) & (line < high)).sum()) for low, high in pairwise(edges)]


@pytest.mark.parametrize("units", [None, "all", [1, 4]])
def test_counts_are_exact_and_no_function_of_the_cut(units):
    rows = synthetic()
    whole = histograms(Cut(rows), "L1.mlp_post", units=units, bins=32)
    x = rows["L1.mlp_post"].double()
    lines = x.flatten()[:, None] if units is None else x[:, [1, 4]] if units == [1, 4] else x
    for line, counts, edges in zip(lines.T, whole.counts, whole.edges, strict=True):
        assert counts.tolist() == counted(line, edges.tolist())
        assert int(counts.sum()) == len(line)
    for lengths in CUTS[1:]:
        found = histograms(Cut(rows, lengths), "L1.mlp_post", units=units, bins=32)
        for name in ("counts", "exponent", "low", "least", "most", "zeros", "positive", "numbers"):
            assert torch.equal(getattr(found, name), getattr(whole, name)), name


def test_bins_widen_with_the_range_and_fill_more_than_half():
    bins = Bins.empty(3, 16, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    seen = []
    for scale in (1e-3, 1.0, 30.0, 1e4):
        x = torch.randn(50, 3, generator=generator) * scale
        seen.append(x)
        bins = bins.with_numbers(x)
        every = torch.cat(seen)
        assert torch.equal(bins.least, every.amin(0).double())
        assert bool((bins.counts.sum(1) == len(every)).all())
        span = (bins.most - bins.least) / bins.width
        assert bool((span > 16 / 2 - 1).all())
        assert bool((bins.edges[:, 0] <= bins.least).all())
        assert bool((bins.most < bins.edges[:, -1]).all())


@pytest.mark.parametrize("value", [0.0, 5.0, -3.25, 1e-30, 1e30])
def test_a_constant_is_one_bin(value):
    bins = Bins.empty(1, 8, torch.device("cpu")).with_numbers(torch.full((9, 1), value))
    assert bins.counts.max() == 9
    assert float(bins.at_rank(torch.tensor([4]))) == pytest.approx(value, rel=1e-6)


def test_memory_does_not_grow_with_rows():
    bins, sizes = Bins.empty(7, 64, torch.device("cpu")), set()
    for seed in range(20):
        bins = bins.with_numbers(synthetic(400, seed=seed)["L1.mlp_post"])
        sizes.add(bins.nbytes)
    assert len(sizes) == 1


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_quantiles_are_within_the_error_they_state(scale):
    rows = synthetic()
    found = histograms(Cut(rows, (64,)), "L0.mlp_post", units="all", scale=scale)
    for q in (0.0, 0.05, 0.5, 0.9, 0.999, 1.0):
        true = torch.tensor(
            np.quantile(rows["L0.mlp_post"].numpy(), q, axis=0, method="inverted_cdf")
        )
        near = found.quantile(q)
        if scale == "linear":
            assert bool(((near - true).abs() <= found.resolution).all())
        else:
            both = true > 0
            assert torch.equal(near > 0, both)
            assert bool(((near.log10() - true.log10()).abs() <= found.resolution)[both].all())


def test_zeros_and_firing_are_counted_exactly():
    rows = synthetic()
    rows.tensors["L0.mlp_post"][:, 3] = 0
    x = rows["L0.mlp_post"]
    found = histograms(Cut(rows, (50,)), "L0.mlp_post", units="all", scale="log")
    assert torch.equal(found.zeros, (x == 0).sum(0))
    assert torch.equal(found.density, (x > 0).double().mean(0))
    assert int(found.counts[3].sum()) == 0
    frame = found.to_frame()
    assert frame["zero"][3] == 1.0
    assert np.isnan(frame["max"][3])
    assert frame["median"][3] == 0
    assert frame["max"][0] == pytest.approx(float(x[:, 0].max()), rel=1e-5)
    assert "1 never" in found.plot_density().axes[0].get_title().replace("\n", " ")


def test_norms_parts_transforms_and_several_sites():
    rows = synthetic()
    heads = histograms(Cut(rows, (99,)), "L0.z", of="norm", units="all")
    assert heads.names == ("L0.H0.z", "L0.H1.z", "L0.H2.z")
    assert torch.allclose(heads.most, rows["L0.z"].norm(dim=-1).amax(0).double())
    two = histograms(rows, ["L*.mlp_post", "L0.H1.z"])
    assert two.names == ("L0.mlp_post", "L1.mlp_post", "L0.H1.z")
    assert two.numbers.tolist() == [4900, 4900, 2800]
    every = histograms(rows)
    assert every.names == rows.sites
    turned = histograms(rows, "L1.mlp_post", transform=lambda x: -x[:, :1])
    assert float(turned.most[0]) == -float(rows["L1.mlp_post"][:, 0].min())


def test_results_are_saved_whole_and_drawn(tmp_path):
    found = histograms(synthetic(), "L*.mlp_post", bins=16)
    loaded = Histograms.load(found.save(tmp_path / "a.safetensors"))
    assert torch.equal(loaded.counts, found.counts)
    assert loaded.names == found.names
    assert loaded.provenance == found.provenance
    figure = loaded.plot()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(
        found.names
    )
    assert "% are zero" in figure.axes[0].get_title().replace("\n", " ")


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_dead_units_are_named_and_not_drawn(scale):
    rows = synthetic()
    rows["L0.mlp_post"][:, 2] = 0
    found = histograms(rows, "L0.mlp_post", units=[1, 2], scale=scale)
    axes = found.plot().axes[0]
    assert "always 0: L0.mlp_post.N2" in axes.get_title().replace("\n", " ")
    assert axes.get_ylim()[1] < 1e6
    with pytest.raises(ResultError, match=r"L0.mlp_post.N2: always 0"):
        found.plot("L0.mlp_post.N2")


def test_heights_of_less_than_a_decade_are_written_as_numbers():
    figure = histograms(synthetic(), "L0.mlp_post", bins=4, scale="log").plot()
    figure.canvas.draw()
    axis = figure.axes[0].yaxis
    labels = [tick.label1.get_text() for tick in [*axis.majorTicks, *axis.minorTicks]]
    assert not any("$" in label for label in labels)


@pytest.mark.bad_input
def test_what_is_refused():
    rows = synthetic(60)
    with pytest.raises(RunError, match="expected 'all' for a histogram of each unit"):
        histograms(rows, units="each")
    with pytest.raises(RunError, match=r"scale='logarithmic'.*nearest: 'log'"):
        histograms(rows, scale="logarithmic")
    for bins in (1, 7.5, "many"):
        with pytest.raises(RunError, match="expected a whole number, at least 4"):
            histograms(rows, bins=bins)
    with pytest.raises(SiteError, match="reads every token"):
        histograms(rows, "L0.z@3")
    with pytest.raises(SiteError, match="this source has no 'L5.z'"):
        histograms(rows, "L5.z")
    found = histograms(rows, "L0.mlp_post", units="all")
    with pytest.raises(ResultError, match="expected a share from 0 to 1"):
        found.quantile(50)
    with pytest.raises(ResultError, match="nearest: 'L0.mlp_post.N"):
        found.plot("L0.mlp_post.N9")
    with pytest.raises(ResultError, match="7 histograms do not fit"):
        found.plot()
