"""Input gradients, and whether they depend on the model: completeness, hand-made failures, randomised weights."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.attribution.saliency import METHODS, saliency
from interp.attribution.sanity import SanityCheck, sanity_check
from interp.errors import MetricError
from interp.metrics import evaluate
from tests import tiny


@pytest.fixture(scope="module")
def demo():
    return interp.load("demo")


@pytest.fixture(scope="module")
def prompts(demo):
    return interp.prompts.ioi(demo, 24, seed=3)


def test_gradients_are_those_of_the_embeddings(demo, prompts):
    few = prompts.subset(slice(0, 3))
    e = demo.hf.get_input_embeddings()(few.clean.ids).detach().requires_grad_(True)
    logits = demo.hf(inputs_embeds=e).logits
    (g,) = torch.autograd.grad(evaluate("logit_diff", logits, few).sum(), e)
    signed = saliency(demo, few, "gradient x input", metric="logit_diff")
    assert torch.allclose(signed.nan_to_num(), (e * g).sum(-1), atol=1e-4)
    size = saliency(demo, few, "gradient", metric="logit_diff", batch=2)
    assert torch.allclose(size.nan_to_num(), g.norm(dim=-1), rtol=1e-3)


def test_gradient_x_input_is_attribution_patching_of_the_embedding_with_zero(demo, prompts):
    countries = (("France", " Paris"), ("Japan", " Tokyo"), ("Peru", " Lima"))
    few = demo.prompts(
        [f"The capital of {c} is" for c, _ in countries], answers=[a for _, a in countries]
    )
    theirs = interp.attribute(
        demo, few, "embed", metric="log_prob", source="zero", direction="noise", positions="each",
        progress=False,
    ).per_prompt  # fmt: skip
    ours = saliency(demo, few)
    assert torch.allclose(ours.T, -theirs[: ours.shape[1]], atol=1e-4)


def test_padding_has_no_attribution(demo):
    both = demo.prompts(
        ["The capital of France is", "The capital city of Japan is named"],
        answers=[" Paris", " Tokyo"],
    )
    found = saliency(demo, both)
    assert torch.equal(found.isnan(), ~both.clean.mask)
    alone = saliency(demo, demo.prompts(["The capital of France is"], answers=[" Paris"]))
    assert torch.allclose(found[0][both.clean.mask[0]], alone[0], atol=1e-5)


def test_input_gradients_of_the_demo_model_pass(demo, prompts, tmp_path):
    found = sanity_check(demo, prompts, metric="logit_diff", progress=False)
    assert found.steps == ("unembedding", "block 3", "block 2", "block 1", "block 0", "embedding")
    assert found.signed.shape == (6, 24)
    assert abs(found.signed[-1].nanmean()) < 0.3
    again = SanityCheck.load(found.save(tmp_path / "s.safetensors"))
    assert torch.equal(again.signed, found.signed)
    assert abs(found.null.nanmean()) < 0.3
    assert found.to_frame().shape == (6, 3)
    assert len(found.plot().axes[0].lines) == 3


def test_what_does_not_look_at_the_model_fails(demo, prompts):
    def lateness(model, asked):
        return torch.arange(asked.clean.ids.shape[1]).double().expand(len(asked), -1)

    found = sanity_check(demo, prompts, lateness, progress=False)
    assert torch.allclose(found.signed, torch.ones(6, 24).double())
    assert torch.allclose(found.null, torch.ones(24).double())
    assert found.method == "lateness"


def test_the_size_of_gradients_is_much_the_same_in_any_random_model(demo, prompts):
    found = sanity_check(demo, prompts, "gradient", metric="logit_diff", progress=False)
    assert found.null.nanmean() > 0.8
    assert found.signed[-1].nanmean() < found.null.nanmean() - 0.2


def test_what_looks_at_embeddings_alone_falls_with_them_alone(demo, prompts):
    def length(model, asked):
        return model.run(asked, save="embed", logits="none").cache["embed"].norm(dim=-1)

    found = sanity_check(demo, prompts, length, order="independent", progress=False)
    assert torch.allclose(found.signed[:-1], torch.ones(5, 24).double())
    assert found.signed[-1].nanmean().abs() < 0.5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_weight_is_made_random_and_put_back(family, llama_like_tokenizer):
    hf = tiny.build(family, vocab_size=len(llama_like_tokenizer))
    model = interp.load(hf, tokenizer=llama_like_tokenizer, check=False)
    asked = model.prompts(["The capital of France is"], answers=[" Paris"])
    before, twin, seen = model.weights_hash, model.random_twin(0, check=False).weights_hash, []

    def spy(model, asked):
        seen.append(model.weights_hash)
        return saliency(model, asked)

    found = sanity_check(model, asked, spy, progress=False)
    assert seen[1] == seen[-1] == twin
    assert seen[0] == before == model.weights_hash
    assert len(set(seen)) == len(seen) - 1
    assert found.steps[0] == ("unembedding (tied)" if family == "gpt2" else "unembedding")


@pytest.mark.bad_input
def test_what_does_not_fit_is_refused(demo, prompts):
    with pytest.raises(MetricError, match="method='magic'"):
        saliency(demo, prompts, "magic")
    with pytest.raises(MetricError, match="has no gradient"):
        saliency(demo, prompts, metric="accuracy")
    with pytest.raises(MetricError, match="expected 'cascading' or 'independent'"):
        sanity_check(demo, prompts, order="up")
    with pytest.raises(MetricError, match="a callable takes none"):
        sanity_check(demo, prompts, lambda m, p: None, metric="prob")
    with pytest.raises(MetricError, match="4 tokens or more"):
        sanity_check(demo, demo.prompts([" Paris is"], answers=[" Lima"]))
    assert METHODS[0] == "gradient"
