"""Head scores on patterns drawn by hand."""

from __future__ import annotations

import pytest
import torch

from interp.discovery.scores import (
    duplicate_token_scores,
    induction_scores,
    previous_token_scores,
)
from interp.errors import MetricError

PERIOD = 6
LENGTH = 1 + 2 * PERIOD


def head(lag):
    """Attention to exactly ``lag`` positions back, or to <bos> where there is no such position."""
    pattern = torch.zeros(LENGTH, LENGTH)
    for query in range(LENGTH):
        pattern[query, query - lag if query >= lag else 0] = 1.0
    return pattern


def uniform():
    return torch.ones(LENGTH, LENGTH).tril() / torch.arange(1, LENGTH + 1)[:, None]


def stack(*heads):
    """Heads as a batch of two equal examples."""
    return torch.stack(heads).expand(2, -1, -1, -1)


def test_each_kind_of_head_scores_one_on_its_own_score_only():
    pattern = stack(head(1), head(PERIOD), head(PERIOD - 1))
    assert previous_token_scores(pattern).tolist() == [1, 0, 0]
    assert duplicate_token_scores(pattern, PERIOD).tolist() == [0, 1, 0]
    assert induction_scores(pattern, PERIOD).tolist() == [0, 0, 1]


def test_resting_on_bos_scores_nothing():
    rest = torch.zeros(LENGTH, LENGTH)
    rest[:, 0] = 1.0
    assert previous_token_scores(stack(rest)).item() == 0
    assert induction_scores(stack(rest), PERIOD).item() == 0
    assert duplicate_token_scores(stack(rest), PERIOD).item() == 0


def test_even_attention_scores_one_over_the_positions():
    second_copy = torch.arange(PERIOD + 1, LENGTH)
    expected = (1 / (second_copy + 1.0)).mean().item()
    assert induction_scores(stack(uniform()), PERIOD).item() == pytest.approx(expected)
    assert duplicate_token_scores(stack(uniform()), PERIOD).item() == pytest.approx(expected)


def test_batch_is_averaged():
    pattern = torch.stack([head(1)[None], head(PERIOD)[None]])
    assert previous_token_scores(pattern).item() == pytest.approx(0.5)


def test_patterns_of_another_length_are_refused():
    with pytest.raises(MetricError, match=r"\(13, 13\) positions for period 5.*11 positions"):
        induction_scores(stack(head(1)), 5)
    with pytest.raises(MetricError, match="at least 3 positions, got 2"):
        previous_token_scores(torch.ones(1, 1, 2, 2))
