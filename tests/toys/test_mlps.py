"""MLPs: equal to their equations, readable inside, one seed one network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interp.errors import ToyError
from interp.toys.losses import HarmonicReadout
from interp.toys.mlps import QuadraticMLP, ReluMLP, TiedAutoencoder

PAIRS = torch.cartesian_prod(torch.arange(7), torch.arange(7))


def test_quadratic_is_its_equation():
    model = QuadraticMLP(7, width=12, seed=3)
    a, b = PAIRS.T
    expected = (model.U[:, a] + model.V[:, b]).square().T @ model.W.T
    assert torch.allclose(model(PAIRS), expected, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == ["U", "V", "W"]
    wide = QuadraticMLP(97, width=500)
    assert wide.W.std().item() == pytest.approx(0.5 / 1000 ** (1 / 3), rel=0.02)


def test_activations_are_what_stands_inside():
    model = QuadraticMLP(7, width=12)
    seen = model.activations(PAIRS)
    assert list(seen) == ["pre", "hidden", "out"]
    assert torch.equal(seen["hidden"], seen["pre"].square())
    assert torch.equal(seen["out"], model(PAIRS))
    assert not model.hook_hidden._forward_hooks
    relu = ReluMLP(7, widths=(5, 6)).activations(PAIRS)
    assert {name: list(x.shape) for name, x in relu.items()} == {
        "hidden0": [49, 5], "hidden1": [49, 6], "out": [49, 7],
    }  # fmt: skip
    tied = TiedAutoencoder(8, 3).activations(torch.rand(4, 8))
    assert torch.equal(tied["out"], tied["pre"].relu())


def test_without_a_neuron_is_its_hidden_activation_set_to_zero():
    model = QuadraticMLP(7, width=12)
    pruned = model.without(torch.tensor([2, 5]))

    def silence(_module, _args, hidden):
        hidden = hidden.clone()
        hidden[:, [2, 5]] = 0
        return hidden

    handle = model.hook_hidden.register_forward_hook(silence)
    assert torch.allclose(model(PAIRS), pruned(PAIRS), atol=1e-6)
    handle.remove()
    assert not torch.allclose(model(PAIRS), pruned(PAIRS), atol=1e-3)
    assert torch.equal(model.without(torch.tensor([], dtype=torch.long))(PAIRS), model(PAIRS))
    with pytest.raises(ToyError, match="neurons outside 0 to 11"):
        model.without(torch.tensor([12]))


def test_a_periodic_neuron_has_an_ipr_of_one():
    model, t = QuadraticMLP(7, width=12), torch.arange(7)
    with torch.no_grad():
        model.U[0] = model.V[0] = model.W[:, 0] = torch.cos(2 * torch.pi * 2 * t / 7)
    assert model.ipr()[0].item() == pytest.approx(1, abs=1e-5)
    assert model.ipr()[1:].max() < 0.99


def test_relu_is_its_equation_and_scales():
    model = ReluMLP(7, widths=(5, 6), seed=1)
    x = torch.cat([nn.functional.one_hot(PAIRS[:, i], 7) for i in (0, 1)], 1).float()
    expected = model.readout(model.hidden[1](model.hidden[0](x).relu()).relu())
    assert torch.allclose(model(PAIRS), expected)
    scaled = ReluMLP(7, widths=(5, 6), seed=1, scale=0.1)
    assert torch.allclose(scaled(PAIRS), 0.1 * expected)
    centres = HarmonicReadout(6, 9)
    harmonic = ReluMLP(7, widths=(5, 6), seed=1, readout=centres)
    assert torch.allclose(harmonic(PAIRS), centres(model.activations(PAIRS)["hidden1"]))


def test_weights_start_as_torchs_do_and_leave_its_generator_alone():
    state = torch.get_rng_state()
    model = ReluMLP(50)
    assert torch.equal(torch.get_rng_state(), state)
    weight = model.hidden[0].weight
    assert weight.abs().max() <= 0.1
    assert weight.std().item() == pytest.approx(nn.Linear(100, 200).weight.std().item(), rel=0.03)


def test_tied_autoencoder_is_its_equation():
    model = TiedAutoencoder(8, 3)
    with torch.no_grad():
        model.b.uniform_(-1, 1)
    x = torch.rand(5, 8)
    assert torch.allclose(model(x), torch.relu(x @ model.W @ model.W.T + model.b), atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda s: QuadraticMLP(7, seed=s), lambda s: ReluMLP(7, seed=s), lambda s: TiedAutoencoder(7, 3, seed=s)]
)  # fmt: skip
def test_one_seed_one_network(make):
    first, again, other = ([p.detach() for p in make(s).parameters()] for s in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.bad_input
def test_odd_shapes_are_refused():
    with pytest.raises(ToyError, match=r"expected pairs of ids \[batch, 2\]"):
        QuadraticMLP(7)(torch.zeros(4, 14))
    with pytest.raises(ToyError, match="p=0; expected a whole number above 0"):
        QuadraticMLP(0)
    with pytest.raises(ToyError, match="at least one hidden layer"):
        ReluMLP(7, widths=())


def test_neurons_are_left_out_by_number_or_by_a_mask():
    model = QuadraticMLP(7, width=4)
    mask = torch.tensor([False, False, True, True])
    assert torch.equal(model.without(mask).W, model.without([2, 3]).W)
    assert torch.equal(model.without(~mask).W, model.without([0, 1]).W)
    with pytest.raises(ToyError, match=r"a mask of \[3\]; expected \[4\]"):
        model.without(mask[:3])
    with pytest.raises(ToyError, match="neurons outside 0 to 3"):
        model.without([4])


def test_ids_that_are_not_there():
    with pytest.raises(ToyError, match="ids from 1 to 7; expected 0 to 6"):
        QuadraticMLP(7)(torch.tensor([[1, 7]]))
