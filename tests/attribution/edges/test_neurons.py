"""Neurons that are nodes: the MLP's gradient is shared out among them and the rest."""

import pytest
import torch

import interp
from interp.graph import Setting
from tests.attribution.cases import model_of, pairs_of

UNITS = ["m1.n3", "m1.n40", "m2.n7"]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_eap_of_neurons_is_the_derivative_of_ablating(family):
    model = model_of(family)
    prompts = pairs_of(model, differ=(1, 3))
    own = Setting.of(model, prompts, units=UNITS)
    shares = own.graph.full.double()[None].requires_grad_()
    (gradient,) = torch.autograd.grad(own.scores(shares, grad=True).mean(), shares)
    eap = interp.attribute(model, prompts, "edges", method="eap", units=UNITS)
    expected = -gradient[0][own.graph.index]
    assert torch.allclose(eap.values[own.graph.index], expected, atol=1e-6)
    assert abs(eap.of("a0.h1->m1.n3")) > 1e-6


def test_edges_of_an_mlp_are_those_of_its_neurons_and_its_rest():
    model = model_of("gpt2")
    prompts = pairs_of(model)
    for method in ("eap", "eap-ig-activations"):
        whole = interp.attribute(model, prompts, "edges", method=method, steps=2)
        parts = interp.attribute(model, prompts, "edges", method=method, steps=2, units=UNITS)
        for source in ("embed", "a0.h1", "m0"):
            own = sum(parts.of(f"{source}->{dest}") for dest in ("m1", "m1.n3", "m1.n40"))
            assert own == pytest.approx(whole.of(f"{source}->m1"), abs=1e-9), method
