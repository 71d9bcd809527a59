"""Optimisers: ⊥Grad changes no norm to first order, schedules count by the state, rows decay to norm 1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from interp.errors import ToyError
from interp.toys.optimisers import AdamW, WarmupCosine, orthogonal, orthogonal_gradients, row_decay_


def test_orthogonal_keeps_the_length_and_leaves_the_weights_direction():
    g, w = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = orthogonal(g, w)
    assert (found * w).sum().abs() < 1e-12
    assert found.norm() == pytest.approx(g.norm().item())
    plain = g - (g * w).sum() / (w * w).sum() * w
    assert torch.allclose(found / found.norm(), plain / plain.norm())


def test_orthogonal_of_what_has_no_other_direction_is_zero():
    w = torch.randn(50, generator=torch.Generator().manual_seed(1))
    assert not orthogonal(-3.3 * w, w).any()
    assert not orthogonal(torch.tensor([2.0]), torch.tensor([0.7])).any()
    g = torch.randn(50)
    assert torch.equal(orthogonal(g, torch.zeros(50)), g)


def test_orthogonal_gradients_take_out_what_only_scales_the_logits():
    """Of a network without biases, gradients along the weights scale the output: Euler's theorem."""
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    x = torch.randn(10, 6)
    (model(x).square().mean()).backward()
    along = [(p * p.grad).sum().item() for p in model.parameters()]
    assert along[0] == pytest.approx(along[1], rel=1e-4)
    assert abs(along[0]) > 0.01
    before = [p.grad.norm() for p in model.parameters()]
    orthogonal_gradients(list(model.parameters()))
    for p, norm in zip(model.parameters(), before, strict=True):
        assert abs((p * p.grad).sum().item()) < 1e-5
        assert p.grad.norm() == pytest.approx(norm.item(), rel=1e-5)


def test_adamw_is_torchs_with_the_constants():
    made = AdamW(lr=0.01, betas=(0.9, 0.98), eps=1e-25, weight_decay=10.0)([torch.zeros(3)])
    group = made.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (
        0.01, (0.9, 0.98), 1e-25, 10.0,
    )  # fmt: skip


def test_a_schedule_goes_on_where_a_resumed_run_was():
    make = AdamW(lr=0.5, schedule=WarmupCosine(10, warmup=4, floor=0.2))

    def steps(optimiser, weight, n):
        rates = []
        for _ in range(n):
            weight.grad = torch.ones(2)
            optimiser.step()
            rates.append(optimiser.param_groups[0]["lr"])
        return rates

    weight = nn.Parameter(torch.zeros(2))
    whole = make([weight])
    rates = steps(whole, weight, 12)
    expected = [
        0.5 * min(1, (s + 1) / 4) * max(0.2, 0.5 * (1 + math.cos(math.pi * min(s / 10, 1))))
        for s in range(12)
    ]
    assert rates == pytest.approx(expected)
    first, part = nn.Parameter(torch.zeros(2)), None
    part = make([first])
    begun = steps(part, first, 5)
    second = nn.Parameter(first.detach().clone())
    resumed = make([second])
    resumed.load_state_dict(part.state_dict())
    assert begun + steps(resumed, second, 7) == rates
    assert torch.equal(weight, second)


@pytest.mark.parametrize("size", [0.1, 1.0, 5.0])
def test_negative_decay_drives_rows_to_norm_one(size):
    w = size * torch.eye(3)
    for _ in range(2000):
        row_decay_(w, -1.0, 0.01)
    assert torch.allclose(w, torch.eye(3), atol=1e-4)


def test_positive_decay_is_weight_decay():
    w = torch.ones(2, 2)
    row_decay_(w, 0.5, 0.1)
    assert torch.allclose(w, torch.full((2, 2), 0.95))


def test_row_decay_leaves_vectors_alone():
    weight, bias = nn.Parameter(torch.full((2, 2), 2.0)), nn.Parameter(torch.full((2,), 2.0))
    optimiser = AdamW(lr=0.1, row_decay=-1.0)([weight, bias])
    weight.grad, bias.grad = torch.zeros(2, 2), torch.zeros(2)
    optimiser.step()
    assert (weight < 2).all()
    assert torch.equal(bias, torch.full((2,), 2.0))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ToyError, match="weight_decay ≥ 0"):
        AdamW(weight_decay=-1.0)
    with pytest.raises(ToyError, match="a floor from 0 to 1"):
        WarmupCosine(100, floor=2.0)
