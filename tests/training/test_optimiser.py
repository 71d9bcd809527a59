"""Adam is torch's, also when clipped and resumed, and refuses what its kernel would garble."""

from __future__ import annotations

import pytest
import torch

from interp.errors import TrainingError
from interp.training import optimiser
from interp.training.optimiser import Adam, project_out, unit_rows

SHAPES = {"enc": (30, 7), "b_enc": (30,), "dec": (30, 11), "b_dec": (11,)}


def parameters(dtype):
    g = torch.Generator().manual_seed(0)
    return {n: torch.randn(s, generator=g, dtype=dtype).requires_grad_() for n, s in SHAPES.items()}


def gradients(step, dtype):
    g = torch.Generator().manual_seed(step + 1)
    return {
        n: (2.0 ** (step % 5 - 2)) * torch.randn(s, generator=g, dtype=dtype)
        for n, s in SHAPES.items()
    }


def feed(params, step, dtype):
    for name, grad in gradients(step, dtype).items():
        params[name].grad.copy_(grad)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("clip", [None, 20.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_fifty_steps_are_those_of_torch(dtype, tolerance, clip, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(optimiser, "_FUSED", ())
    ours, theirs = parameters(dtype), parameters(dtype)
    adam = Adam(ours, betas=(0.8, 0.99))
    other = torch.optim.Adam(theirs.values(), betas=(0.8, 0.99), lr=1e-2, foreach=False)
    clipped = 0
    for step in range(50):
        feed(ours, step, dtype)
        for name, grad in gradients(step, dtype).items():
            theirs[name].grad = grad
        norm = adam.clip(clip)
        limit = float("inf") if clip is None else clip
        expected = torch.nn.utils.clip_grad_norm_(theirs.values(), limit, foreach=False)
        assert torch.allclose(norm, expected, rtol=1e-6)
        clipped += bool(norm > limit)
        adam.step(1e-2 / (1 + step))
        other.param_groups[0]["lr"] = 1e-2 / (1 + step)
        other.step()
    assert 0 < clipped < 50 or clip is None
    for name, one in ours.items():
        assert (one - theirs[name]).norm() / one.norm() < tolerance


@pytest.mark.parametrize("fused", [True, False])
def test_resuming_gives_the_same_bits(fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(optimiser, "_FUSED", ())
    params = parameters(torch.float32)
    adam = Adam(params)

    def steps(params, adam, which):
        for step in which:
            feed(params, step, torch.float32)
            adam.clip(20.0)
            adam.step(1e-2)

    steps(params, adam, range(5))
    state = {name: one.clone() for name, one in adam.state_dict().items()}
    assert set(state) == {f"{m}.{name}" for m in "mv" for name in SHAPES} | {"step"}
    weights = {name: one.detach().clone().requires_grad_() for name, one in params.items()}
    resumed = Adam(weights)
    resumed.load_state_dict(state)
    steps(params, adam, range(5, 9))
    steps(weights, resumed, range(5, 9))
    assert all(torch.equal(params[name], weights[name]) for name in SHAPES)
    assert all(torch.equal(a, resumed.state_dict()[n]) for n, a in adam.state_dict().items())


def test_a_limit_holds_for_one_step_only():
    params, free = parameters(torch.float64), parameters(torch.float64)
    adam, other = Adam(params), Adam(free)
    for step in range(2):
        feed(params, step, torch.float64)
        feed(free, step, torch.float64)
        if step == 0:
            adam.clip(1e-3)
        adam.step(1e-2)
        other.step(1e-2)
    assert not torch.equal(adam.m["enc"], other.m["enc"])
    feed(params, 2, torch.float64)
    before = adam.m["enc"].clone()
    adam.step(1e-2)
    assert torch.allclose(adam.m["enc"], 0.9 * before + 0.1 * gradients(2, torch.float64)["enc"])


def test_a_parameter_with_other_strides_is_refused_by_name():
    transposed = torch.randn(4, 3).T.requires_grad_()
    with pytest.raises(TrainingError, match="parameter enc has strides"):
        Adam({"enc": transposed})


def test_a_gradient_with_other_strides_is_refused_by_name():
    params = parameters(torch.float32)
    adam = Adam(params)
    params["dec"].grad = torch.randn(11, 30).T
    with pytest.raises(TrainingError, match="the gradient of dec is .* with strides"):
        adam.step(1e-2)
    params["dec"].grad = None
    with pytest.raises(TrainingError, match="the gradient of dec is missing"):
        adam.clip(1.0)


def test_a_state_of_another_dictionary_is_refused():
    adam = Adam(parameters(torch.float32))
    state = adam.state_dict()
    del state["m.enc"]
    with pytest.raises(TrainingError, match=r"m.enc differ: m.enc is None, expected \[30, 7\]"):
        adam.load_state_dict(state)


def test_rows_drawn_anew_lose_their_moments():
    params = parameters(torch.float32)
    adam = Adam(params)
    feed(params, 0, torch.float32)
    adam.step(1e-2)
    adam.forget(params["enc"], torch.tensor([2, 5]))
    gone = (adam.m["enc"] == 0).all(1) & (adam.v["enc"] == 0).all(1)
    assert gone.nonzero()[:, 0].tolist() == [2, 5]
    with pytest.raises(TrainingError, match="that this optimiser does not have; it has enc, b_enc"):
        adam.forget(torch.ones(3), torch.tensor([0]))


def test_gradients_are_zeroed_in_place():
    params = parameters(torch.float32)
    adam = Adam(params)
    buffer = params["enc"].grad
    feed(params, 0, torch.float32)
    adam.zero_grad()
    assert params["enc"].grad is buffer
    assert not buffer.any()


@pytest.mark.parametrize("block", [1, 2**20])
def test_what_is_left_of_a_gradient_is_orthogonal_to_each_row(block, monkeypatch):
    monkeypatch.setattr(optimiser, "_BLOCK_BYTES", block)
    g = torch.Generator().manual_seed(0)
    dec, grad = (torch.randn(50, 9, generator=g, dtype=torch.float64) for _ in range(2))
    dec[3] = 0
    whole = grad.clone()
    project_out(grad, dec)
    assert (grad * dec).sum(1).abs().max() < 1e-12
    removed = whole - grad
    assert torch.allclose(
        removed, ((whole * dec).sum(1) / (dec * dec).sum(1).clamp(min=1e-9))[:, None] * dec
    )
    assert torch.equal(grad[3], whole[3])


@pytest.mark.parametrize("block", [1, 2**20])
def test_rows_have_norm_one_afterwards(block, monkeypatch):
    monkeypatch.setattr(optimiser, "_BLOCK_BYTES", block)
    dec = torch.randn(50, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dec[3] = 0
    direction = dec / dec.norm(dim=1, keepdim=True)
    unit_rows(dec)
    assert torch.equal(dec[3], torch.zeros(9, dtype=torch.float64))
    keep = torch.arange(50) != 3
    assert torch.allclose(dec[keep], direction[keep])
