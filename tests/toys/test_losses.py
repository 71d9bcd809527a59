"""Losses: equal to their definitions, right in their gradients, finite at extreme logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from interp.errors import ToyError
from interp.toys.losses import (
    HarmonicReadout,
    collapsed,
    cross_entropy,
    harmonic_logits,
    log_stablemax,
    mse,
    stablemax_cross_entropy,
)

DRAW = torch.Generator().manual_seed(0)
LOGITS = 5 * torch.randn(4, 3, 7, generator=DRAW, dtype=torch.float64)
TARGETS = torch.randint(0, 7, (4, 3), generator=DRAW)


def test_stablemax_is_its_definition():
    s = torch.where(LOGITS >= 0, LOGITS + 1, 1 / (1 - LOGITS))
    expected = s / s.sum(-1, keepdim=True)
    assert torch.allclose(log_stablemax(LOGITS).exp(), expected, rtol=1e-12)
    right = expected.gather(-1, TARGETS[..., None]).log()
    assert stablemax_cross_entropy(LOGITS, TARGETS).item() == pytest.approx(-right.mean().item())


def test_stablemax_has_the_right_gradient_also_at_zero():
    z = torch.tensor([[0.0, 0.0, -2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_stablemax, z)  # s and its slope are continuous at 0


def test_stablemax_learns_where_softmax_has_collapsed():
    """The float32 softmax of a gap of 200 is exactly 1: no loss and no gradient is left."""
    z = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    y = torch.tensor([0])
    assert collapsed(z, y) == 1
    cross_entropy(z, y).backward()
    assert not z.grad.any()
    z.grad = None
    loss = stablemax_cross_entropy(z, y)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(203 / 201), rel=1e-4)
    assert z.grad[0, 0] < 0 < z.grad[0, 1]


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
@pytest.mark.parametrize("sign", [1, -1])
def test_stablemax_is_finite_at_extreme_logits(size, sign):
    z = (sign * torch.tensor([[size, size / 2, 0.0]])).requires_grad_()
    loss = stablemax_cross_entropy(z, torch.tensor([1]))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_collapse_counts_examples():
    z = torch.tensor([[300.0, 0.0], [1.0, 0.0], [0.0, 300.0]])
    assert collapsed(z, torch.tensor([0, 0, 0])).item() == pytest.approx(1 / 3)
    assert collapsed(z.double() / 100, torch.tensor([0, 0, 0])) == 0


def test_harmonic_is_its_definition():
    x, w = torch.randn(5, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    d2 = (x[:, None] - w).square().sum(-1)
    for n in (0.5, 1.0, 14.0):
        expected = (d2 / d2.min(-1, keepdim=True).values) ** -n
        expected = expected / expected.sum(-1, keepdim=True)
        ours = harmonic_logits(x, w, exponent=n, eps=0.0).softmax(-1)
        assert torch.allclose(ours, expected, rtol=1e-9)


def test_harmonic_gradients():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: harmonic_logits(x, w, exponent=2.0), (x, w))


def test_harmonic_keeps_its_digits_close_to_a_class_far_from_zero():
    """‖w‖² + ‖x‖² - 2 w·x in float32 is off by a hundred percent here."""
    w = torch.full((2, 8), 1000.0)
    w[1] += 1
    x = w[:1] + 2**-7
    exact = harmonic_logits(x.double(), w.double())
    assert torch.allclose(harmonic_logits(x, w).double(), exact, atol=1e-5)
    on_class = harmonic_logits(w[:1], w)
    assert on_class.isfinite().all()
    assert on_class.argmax() == 0


def test_harmonic_readout_finds_centres():
    """Its rows become the classes' means, as the paper has it."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 2, generator=draw)
    y = torch.randint(0, 3, (120,), generator=draw)
    x = centres[y] + 0.05 * torch.randn(120, 2, generator=draw)
    readout = HarmonicReadout(2, 3, exponent=1.0, seed=1)
    optimiser = torch.optim.Adam(readout.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        cross_entropy(readout(x), y).backward()
        optimiser.step()
    assert (readout.weight - centres).norm(dim=-1).max() < 0.05
    assert readout.extra_repr() == "2 → 3 centres, exponent 1"
    with pytest.raises(ToyError, match="expected above 0"):
        HarmonicReadout(2, 3, exponent=0.0)


def test_mse_takes_ids_and_numbers():
    outputs = torch.randn(4, 3, 7)
    one_hot = F.one_hot(TARGETS, 7).float()
    assert mse(outputs, TARGETS) == mse(outputs, one_hot) == F.mse_loss(outputs, one_hot)
    assert mse(outputs[..., :1], outputs[..., 0]) == 0


def test_cross_entropy_is_torchs():
    expected = F.cross_entropy(LOGITS.flatten(0, 1), TARGETS.flatten())
    assert cross_entropy(LOGITS, TARGETS) == expected


@pytest.mark.bad_input
def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ToyError, match=r"logits \[4, 3, 7\] and targets \[3\]"):
        cross_entropy(LOGITS, TARGETS[0])
    with pytest.raises(ToyError, match="expected class ids"):
        stablemax_cross_entropy(LOGITS, LOGITS[..., 0])
    with pytest.raises(ToyError, match=r"mse\(\) got outputs \[4, 3, 7\] and targets \[4, 3\]"):
        mse(LOGITS, LOGITS[..., 0])


@pytest.mark.parametrize("loss", [cross_entropy, stablemax_cross_entropy, mse, collapsed])
@pytest.mark.parametrize("target", [7, -1])
def test_targets_that_are_no_class(loss, target):
    with pytest.raises(
        ToyError, match=f"targets from {min(target, 2)} to {max(target, 2)} for 7 classes"
    ):
        loss(LOGITS[0], torch.tensor([2, target, 2]))
