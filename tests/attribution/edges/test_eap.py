"""EAP is the derivative of ablating; its interpolations and the exact scores say what they should."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import GraphError, MetricError, RunError
from interp.graph import Setting
from tests import tiny
from tests.engine.cases import pairs

APART = ("gpt2", "gpt_neox", "llama", "mistral", "gemma2", "qwen3", "granite", "opt", "phi", "gptj",
         "bloom", "olmo")  # fmt: skip


def loaded(family):
    return interp.load(tiny.shared(family), check=False)


def flat(scores):
    return scores.values[scores.graph.index]


@pytest.mark.parametrize("options", [{}, {"freeze_norms": True}, {"ablation": "zero"}])
@pytest.mark.parametrize("family", APART)
def test_eap_is_the_derivative_of_ablating(family, options):
    """d metric / d (share that is ablated), at nothing ablated, by the machinery that ablates."""
    model = loaded(family)
    prompts = pairs(model)
    own = Setting.of(model, prompts, **options)
    shares = own.graph.full.float()[None].requires_grad_()
    (gradient,) = torch.autograd.grad(own.scores(shares, grad=True).mean(), shares)
    eap = interp.attribute(model, prompts, "edges", method="eap", **options)
    expected = -gradient[0][own.graph.index]
    scale = float(expected.abs().max())
    assert float((flat(eap) - expected).abs().max()) < 2e-5 * max(scale, 1.0)
    assert scale > 0.001


@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding_and_batches_change_nothing(padding):
    model = loaded("llama")
    prompts = pairs(model, padding)
    for method in ("eap", "eap-ig"):
        together = interp.attribute(model, prompts, "edges", method=method)
        apart = interp.attribute(model, prompts, "edges", method=method, batch=1)
        assert torch.allclose(flat(together), flat(apart), atol=1e-5)


def test_node_scores_are_sums_of_edges():
    """What a node writes is read by its edges and nothing else: the chain rule."""
    model = loaded("gpt2")
    prompts = pairs(model)
    for method in ("eap", "eap-ig"):
        nodes = interp.attribute(model, prompts, "edges", method=method).nodes()
        if method == "eap":
            for sites, name in (("L*.H*.z", "a{}.h{}"), ("L*.mlp_out", "m{}"), ("embed", "embed")):
                own = interp.attribute(
                    model, prompts, sites, direction="noise", positions="all"
                ).values
                for index in (
                    torch.cartesian_prod(*map(torch.arange, own.shape)) if own.dim() else [()]
                ):
                    place = tuple(int(i) for i in torch.as_tensor(index).flatten())
                    assert nodes[name.format(*place)] == pytest.approx(float(own[place]), abs=1e-5)
        else:
            assert set(nodes) == {*interp.Graph.of(model).sources}


def test_integration_along_embeddings_is_complete_for_them():
    """The embeddings' scores integrate to the effect of their whole change."""
    model = loaded("gpt2")
    prompts = pairs(model)
    fine = interp.attribute(model, prompts, "edges", method="eap-ig", steps=60, alphas="midpoint")
    whole = interp.patch(model, prompts, "embed", direction="noise", positions="all")
    effect = whole.per_prompt.mean() - whole.clean.mean()
    assert fine.nodes()["embed"] == pytest.approx(float(effect), abs=5e-3)


def test_rules_of_integration_differ_and_bracket():
    model = loaded("gpt2")
    prompts = pairs(model)
    left, right = (
        flat(interp.attribute(model, prompts, "edges", steps=1, alphas=rule))
        for rule in ("left", "right")
    )
    eap = flat(interp.attribute(model, prompts, "edges", method="eap"))
    assert torch.allclose(right, eap, atol=1e-6)  # α = 1 is the run itself
    assert not torch.allclose(left, eap, atol=1e-3)


def test_exact_scores_are_patches():
    model = loaded("gpt_neox")
    prompts = pairs(model)
    scores = interp.attribute(model, prompts, "edges", method="exact")
    patched = interp.patch(
        model, prompts, "L0.H1.result -> L2.H3.q", direction="noise", positions="all"
    )
    effect = float((patched.per_prompt - patched.clean).mean())
    assert scores.of("a0.h1->a2.h3<q>") == pytest.approx(effect, abs=1e-5)
    assert scores.per_prompt.shape[0] == 4


def test_positions_split_edges():
    model = loaded("gpt2")
    prompts = pairs(model)
    for method in ("eap", "eap-ig"):
        whole = interp.attribute(model, prompts, "edges", method=method)
        split = interp.attribute(model, prompts, "edges", method=method, positions=["here", "END"])
        assert torch.allclose(
            split.values.sum(-1).nan_to_num(), whole.values.nan_to_num(), atol=1e-5
        )


def test_denoising_has_signs_of_its_own():
    """Putting one clean edge into the corrupted run: positive helps."""
    model = loaded("gpt2")
    prompts = pairs(model)
    scores = interp.attribute(model, prompts, "edges", method="exact", direction="denoise")
    path = interp.patch(model, prompts, "embed -> L0.H0.v", positions="all")
    effect = float((path.per_prompt - path.corrupted).mean())
    assert scores.of("embed->a0.h0<v>") == pytest.approx(effect, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "acdc"}, RunError, "for edges, expected one of"),
        ({"method": "gradient"}, RunError, "for edges, expected one of"),
        ({"steps": 0}, RunError, "expected at least 1"),
        ({"steps": 2.5}, RunError, "expected at least 1"),
        ({"alphas": "centre"}, RunError, "expected one of left"),
        ({"source": "zero"}, RunError, "ablation="),
        ({"tau": 0.1}, RunError, "tau: not an option"),
        ({"metric": "accuracy"}, MetricError, "has no gradient"),
        ({"metric": "kl", "method": "eap"}, MetricError, "at its minimum"),
        ({"ablation": "mean"}, GraphError, "needs reference="),
    ],
)
def test_bad_calls(options, error, message):
    model = loaded("gpt2")
    with pytest.raises(error, match=message):
        interp.attribute(model, pairs(model), "edges", **options)


def test_options_of_edges_do_not_reach_sites():
    model = loaded("gpt2")
    with pytest.raises(RunError, match="one of edges only"):
        interp.attribute(model, pairs(model), "L0.z", ablation="zero")
    with pytest.raises(RunError, match='for "edges" one of'):
        interp.attribute(model, pairs(model), "L0.z", method="eap")


def test_groups_that_cannot_be_told_apart_are_refused():
    model = loaded("phi3")
    with pytest.raises(GraphError, match="cannot be taken apart"):
        interp.attribute(model, pairs(model), "edges", method="eap")
