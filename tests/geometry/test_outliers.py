"""Outliers and attention statistics: right on shapes whose answer is known, and refusing what has none."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

import interp
from interp.errors import MetricError
from interp.geometry.attention_statistics import (
    attention_entropy,
    collapsed_share,
    max_attention_logit,
    relative_entropy,
)
from interp.geometry.outliers import (
    channel_kurtosis,
    kurtosis,
    max_median_ratio,
    outlier_channels,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kurtosis_is_scipys_of_both_kinds():
    x = noise(40, 6) ** 3
    for fisher in (True, False):
        theirs = stats.kurtosis(x.numpy(), axis=0, fisher=fisher)
        assert torch.allclose(kurtosis(x, fisher=fisher), torch.as_tensor(theirs))
    pooled = kurtosis(x.reshape(-1, 1)).item()
    assert pooled == pytest.approx(stats.kurtosis(x.numpy(), axis=None))
    assert torch.allclose(kurtosis(torch.stack([x, 2 * x + 5]))[1], kurtosis(x))


def test_kurtosis_at_its_known_values():
    assert kurtosis(noise(100_000, 1)).item() == pytest.approx(0, abs=0.05)
    one = torch.zeros(10, 1)
    one[3] = 7
    assert kurtosis(one).item() == pytest.approx(10 - 2 + 1 / 9 - 3)
    assert math.isnan(kurtosis(torch.full((5, 1), 0.1)).item())


def test_a_planted_channel_is_found_and_no_other():
    x = noise(300, 64)
    assert not outlier_channels(x).any()
    assert channel_kurtosis(x).item() == pytest.approx(1, abs=0.05)
    x[:, 17] *= 30
    assert outlier_channels(x).nonzero().flatten().tolist() == [17]
    assert channel_kurtosis(x).item() > 50
    with pytest.raises(MetricError, match="zeros only"):
        channel_kurtosis(torch.zeros(3, 4))
    with pytest.raises(MetricError, match="expected a number above 0"):
        outlier_channels(x, factor=0.0)


def test_a_planted_token_shows_in_its_row():
    x = noise(50, 65)
    base = max_median_ratio(x)
    x[11, 3] = 500
    ratio = max_median_ratio(x)
    assert ratio.argmax() == 11
    assert ratio[11].item() == pytest.approx(500 / float(x[11].abs().median()))
    assert torch.equal(ratio[:11], base[:11])
    assert max_median_ratio(torch.tensor([[0.0, 0.0, 1.0]])).item() == math.inf


def test_entropy_is_the_sum_written_out():
    scores = noise(2, 3, 9, 9).masked_fill(~torch.ones(9, 9).tril().bool(), -torch.inf)
    pattern = scores.softmax(-1)
    found = attention_entropy(pattern)
    p = pattern[1, 2, 5, :6]
    assert found[1, 2, 5].item() == pytest.approx(float(-(p * p.log()).sum()))
    assert torch.equal(found[..., 0], torch.zeros(2, 3).double())
    by_hand = sum(float(found[1, 2, i]) / math.log(i + 1) for i in range(1, 9)) / 8
    assert relative_entropy(pattern)[1, 2].item() == pytest.approx(by_hand)


def test_entropy_at_its_ends():
    even = torch.ones(12, 12).tril() / torch.arange(1, 13)[:, None]
    assert relative_entropy(even).item() == pytest.approx(1)
    assert relative_entropy(even[4:]).item() == pytest.approx(1)  # a continuation sees earlier keys
    assert relative_entropy(torch.eye(12)).item() == 0
    both = torch.stack([even, torch.eye(12)])
    assert collapsed_share(both) == 0.5
    window = torch.ones(12, 12).tril().triu(-2)
    window = window / window.sum(-1, keepdim=True)
    seen = torch.arange(1, 13).clamp(max=3)
    assert relative_entropy(window, visible=seen).item() == pytest.approx(1)
    assert relative_entropy(window).item() < 1


def test_collapse_follows_the_scale_of_scores_and_so_does_the_largest_one():
    scores = noise(6, 20, 20)
    mask = ~torch.ones(20, 20).tril().bool()
    entropies, largest = [], []
    for scale in (0.1, 1.0, 10.0, 100.0):
        grown = (scale * scores).masked_fill(mask, torch.finfo(torch.float32).min)
        entropies.append(float(relative_entropy(grown.softmax(-1)).mean()))
        largest.append(float(max_attention_logit(grown).max()))
    assert entropies == sorted(entropies, reverse=True)
    assert largest == pytest.approx([largest[0] * 10**i for i in range(4)])
    assert largest[1] == pytest.approx(float(scores.masked_fill(mask, 0).abs().max()))


@pytest.mark.bad_input
def test_what_is_no_pattern_is_refused():
    with pytest.raises(MetricError, match="rows sum to 1"):
        attention_entropy(torch.full((4, 4), 0.5))
    with pytest.raises(MetricError, match="no query sees two keys"):
        relative_entropy(torch.ones(1, 1))
    with pytest.raises(MetricError, match="expected 4 numbers of keys"):
        relative_entropy(torch.eye(4), visible=torch.tensor([1, 2]))
    with pytest.raises(MetricError, match=r"expected scores \[\*, q, k\]"):
        max_attention_logit(torch.zeros(4, 3))
    with pytest.raises(MetricError, match="NaN or infinite"):
        max_attention_logit(torch.full((2, 2), torch.nan))


def test_the_demo_models_heads_are_sharper_than_its_untrained_twins():
    model = interp.load("demo")
    twin = model.random_twin(check=False)
    text = ["When Mary and John went to the store, John gave a book to"]
    found = {}
    for name, one in (("trained", model), ("twin", twin)):
        cache = one.run(text, save=["L*.pattern", "L*.attn_scores"], logits="none").cache
        found[name] = (
            torch.cat([relative_entropy(cache[f"L{i}.pattern"][0]) for i in range(4)]),
            torch.cat([max_attention_logit(cache[f"L{i}.attn_scores"][0]) for i in range(4)]),
        )
    assert found["trained"][0].shape == (24,)
    assert found["twin"][0].min() > 0.95
    assert found["trained"][0].min() < 0.5
    assert found["trained"][1].median() > 5 * found["twin"][1].median()
