"""Features of transcoders as nodes, and which dictionaries may stand where edges are ablated."""

from dataclasses import replace

import pytest
import torch

import interp
from interp.errors import GraphError
from interp.graph import Graph, Setting
from tests import tiny
from tests.dictionaries import standing
from tests.engine.cases import pairs

UNITS = ("m1.f5", "m1.f7")
METHODS = ("exact", "eap", "eap-ig", "eap-ig-activations", "atp-qk", "atp*", "information-flow")


def loaded(family="gpt2"):
    return interp.load(tiny.shared(family), check=False)


def close(a, b, tolerance=2e-5):
    assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "granite", "opt"])
def test_a_features_edges_are_the_feature(family, kind, error):
    """All edges out of it ablated, or all into it, is the feature replaced by the other run's."""
    model = loaded(family)
    with model.replaced(standing.transcoder(model, 1, kind=kind), error=error):
        prompts = pairs(model)
        own = Setting.of(model, prompts, units=UNITS)
        masks = own.graph.full.expand(2, -1, -1).clone()
        masks[0, own.graph.sources.index("m1.f5")] = False
        masks[1, :, own.graph.dests.index("m1.f7")] = False
        scores = own.scores(masks)
        for score, site in zip(scores, ("L1.mlp.F5", "L1.mlp.F7"), strict=True):
            patched = interp.patch(model, prompts, site, direction="noise", positions="all")
            close(score, patched.per_prompt)
        assert float((scores - own.full).abs().max()) > 1e-4  # one of them may be silent
        close(own.empty, Setting.of(model, prompts).empty)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_eap_of_features_is_the_derivative_of_ablating(family):
    model = interp.load(
        tiny.build(family), check=False
    )  # no run of it before the dictionary stands
    with model.replaced(standing.transcoder(model, 1)):
        prompts = pairs(model)
        own = Setting.of(model, prompts, units=UNITS)
        shares = own.graph.full.float()[None].requires_grad_()
        (gradient,) = torch.autograd.grad(own.scores(shares, grad=True).mean(), shares)
        eap = interp.attribute(model, prompts, "edges", method="eap", units=UNITS)
        assert torch.allclose(eap.values[own.graph.index], -gradient[0][own.graph.index], atol=2e-6)
        assert abs(eap.of("m1.f7->logits")) > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_one_unit_by_its_name(method):
    model = loaded()
    with model.replaced(standing.transcoder(model, 1)):
        found = interp.attribute(model, pairs(model), "edges", method=method, units="m1.f5")
    assert found.graph.units == ("m1.f5",)
    assert bool(found.values[found.graph.real].isfinite().all())
    assert abs(found.of("m1.f5->logits")) > 1e-4


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ("m1.f24", r"no 'm1.f24': block 1 has 24 features, 0 to 23"),
        ("m2.n128", r"no 'm2.n128': block 2 has 128 neurons"),
        ("m1.n3", "its features can be nodes"),
        (["m1.f3", "m1.n3"], "units of one kind"),
        ("m2.f3", "no transcoder stands for the MLP of block 2"),
        ("a1.h2", "no neuron or feature"),
    ],
)
def test_units_that_this_run_has_not(units, message):
    model = loaded()
    with (
        model.replaced(standing.transcoder(model, 1)),
        pytest.raises(GraphError, match=message),
    ):
        Graph.of(model, units=units)


def test_families_whose_neurons_cannot_be_run_alone():
    model = loaded("opt")
    with pytest.raises(GraphError, match="not a module that can be run by itself"):
        Graph.of(model, units="m1.n3")
    with pytest.raises(GraphError, match="mixture of experts"):
        Graph.of(loaded("mixtral"), units="m1.n3")
    model = loaded("bloom")  # its MLP adds the stream itself
    own = Setting.of(model, pairs(model), units=("m1.n40",))
    into = own.graph.full.clone()
    into[:, own.graph.dests.index("m1.n40")] = False
    site = "L1.mlp_post.N40"
    patched = interp.patch(model, own.prompts, site, direction="noise", positions="all")
    close(own.scores(into[None])[0], patched.per_prompt)


def test_dictionaries_that_join_what_edges_keep_apart():
    """A graph with them would leave paths that no edge stands for."""
    model = loaded()
    for one in (
        standing.crossing(model),
        standing.transcoder(model, 1, reads="resid_mid"),
        standing.transcoder(model, 1, reads="ln2.normalized"),
    ):
        with model.replaced(one), pytest.raises(GraphError, match="no edge between nodes"):
            Setting.of(model, pairs(model))
    both = [standing.transcoder(model, 1), standing.sae(model, "L1.mlp_out")]
    with model.replaced(both), pytest.raises(GraphError, match="expected one"):
        Setting.of(model, pairs(model), units="m1.f5")
    with (
        model.replaced(standing.sae(model, "L1.attn_out")),
        pytest.raises(GraphError, match="not the graph"),
    ):
        Setting.of(model, pairs(model))


def test_error_nodes_leave_every_edge_as_it_is():
    model = loaded()
    prompts = pairs(model)
    without = Setting.of(model, prompts)
    masks = torch.rand(3, *without.graph.full.shape, generator=torch.manual_seed(0)) < 0.7
    expected = replace(without, reason="asked for").scores(masks)
    with model.replaced(standing.transcoder(model, 1), error=True):
        close(Setting.of(model, prompts).scores(masks), expected, 1e-6)
