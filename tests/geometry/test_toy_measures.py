"""Waves, interference and sinks: right on shapes whose answer is known, and refusing what has none."""

from __future__ import annotations

import math

import pytest
import torch

from interp.errors import MetricError
from interp.geometry import (
    fourier_power,
    importance,
    inverse_participation_ratio,
    overlap,
    sink_rate,
    welch_bound,
)

DRAW = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("p", [59, 64])
def test_a_wave_has_one_frequency_whatever_its_phase(p):
    t = torch.arange(p).double()
    phases = torch.rand(20, 1, generator=DRAW, dtype=torch.float64)
    waves = 3 + torch.cos(2 * torch.pi * (7 * t / p + phases))
    power = fourier_power(waves)
    assert power.shape == (20, p // 2)
    assert torch.allclose(power[:, 6], torch.ones(20).double())
    assert torch.allclose(inverse_participation_ratio(waves), torch.ones(20).double())


def test_two_equal_waves_are_a_half_and_noise_is_two_in_all_frequencies():
    t = torch.arange(59)
    two = torch.cos(2 * torch.pi * 3 * t / 59) + torch.sin(2 * torch.pi * 11 * t / 59)
    assert inverse_participation_ratio(two[None]).item() == pytest.approx(0.5, abs=1e-6)
    noise = torch.randn(5000, 59, generator=DRAW)
    assert inverse_participation_ratio(noise).mean().item() == pytest.approx(2 / 30, rel=0.03)


def test_power_is_a_share():
    x = torch.randn(2, 9, 13, generator=DRAW)
    assert torch.allclose(fourier_power(x).sum(-1), torch.ones(2, 9).double())
    assert torch.allclose(fourier_power(5 * x + 2), fourier_power(x))


def test_no_wave_is_refused():
    with pytest.raises(MetricError, match="1 rows are constant"):
        fourier_power(torch.stack([torch.ones(7), torch.arange(7.0)]))
    with pytest.raises(MetricError, match="expected 3 or more"):
        fourier_power(torch.rand(4, 2))


def test_random_directions_overlap_by_one_over_the_width():
    found = overlap(torch.randn(400, 25, generator=DRAW))
    assert found.represented == 1
    assert found.times_width == pytest.approx(1, abs=0.03)
    assert found.squared == pytest.approx(found.times_width / 25)


def test_short_rows_do_not_count():
    rows = torch.cat([torch.eye(3), 0.1 * torch.ones(1, 3)])
    found = overlap(rows)
    assert (found.represented, found.squared, found.largest) == (0.75, 0.0, 0.0)
    assert math.isnan(overlap(0.1 * torch.eye(3)).squared)
    assert overlap(rows, norm=0.0).squared > 0


def test_the_welch_bound_is_met_by_a_regular_simplex_and_by_nothing_less():
    simplex = torch.eye(6) - 1 / 6  # six directions in five dimensions
    basis = torch.linalg.svd(simplex).Vh[:5]
    found = overlap(simplex @ basis.T)
    assert found.squared == pytest.approx(welch_bound(6, 5), rel=1e-5)
    assert overlap(torch.randn(6, 5, generator=DRAW)).squared > welch_bound(6, 5)
    assert welch_bound(4, 8) == 0


def test_importance_of_an_even_pattern_is_the_harmonic_mean():
    even = torch.ones(64, 64).tril() / torch.arange(1, 65)[:, None]
    harmonic = sum(1 / i for i in range(1, 65)) / 64
    found = importance(even)
    assert found[0].item() == pytest.approx(harmonic)
    assert found[-1].item() == pytest.approx(1 / 64)
    assert sink_rate(even) == 0


def test_a_sink_is_found_where_it_is():
    pattern = torch.eye(10).repeat(4, 1, 1)
    pattern[1] = 0
    pattern[1, :, 0] = 1
    pattern[2] = 0
    pattern[2, 0, 0] = 1
    pattern[2, 1:, 1] = 1
    assert sink_rate(pattern) == 0.25
    assert sink_rate(pattern, position=1) == 0.25


def test_sigmoid_attention_is_measured_by_where_it_goes():
    pattern = torch.zeros(8, 8)
    pattern[:, 0] = 0.01
    assert sink_rate(pattern) == 1
    assert sink_rate(pattern, normalised=False) == 0
    silent = torch.zeros(8, 8)
    assert sink_rate(silent) == 0


def test_a_pattern_that_looks_ahead_is_refused():
    with pytest.raises(MetricError, match="zeros above the diagonal"):
        importance(torch.ones(4, 4))
    with pytest.raises(MetricError, match="as many queries as keys"):
        importance(torch.ones(4, 5))


@pytest.mark.parametrize("p", [7, 8])
def test_power_is_shared_as_the_squares_are(p):
    """Two waves of one mean square have half of the power each, also where one turns at every column."""
    at = torch.arange(p).double()
    one = torch.cos(2 * torch.pi * at / p)
    other = torch.cos(2 * torch.pi * (p // 2) * at / p)
    x = one / one.square().mean().sqrt() + other / other.square().mean().sqrt()
    power = fourier_power(x[None])[0]
    assert power[0].item() == pytest.approx(0.5)
    assert power[-1].item() == pytest.approx(0.5)
    assert inverse_participation_ratio(x[None]).item() == pytest.approx(0.5)


def test_attention_of_both_signs_has_no_shares():
    pattern = torch.tensor([[[1.0, 0.0], [1.0, -1.0]]])
    with pytest.raises(MetricError, match="rows of both signs have no shares"):
        sink_rate(pattern)
    assert importance(pattern, normalised=False).tolist() == [[1.0, -1.0]]
    with pytest.raises(MetricError, match="there are 2 positions"):
        sink_rate(pattern.abs(), position=2)


def test_a_bound_needs_two_directions():
    with pytest.raises(MetricError, match="expected two directions or more"):
        welch_bound(1, 3)
