"""Fine-tuning within a bound: the bound holds, the loss falls, the model is as before."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import editing
from interp.editing import FineTuning, finetune
from interp.errors import ModelError, PromptError, RunError

PROMPT, TARGET = "The capital of France is", " Lima"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_no_weight_moves_further_than_epsilon_and_the_model_is_as_before(family, tiny_model):
    model = tiny_model(family)
    before = {k: v.clone() for k, v in model.hf.state_dict().items()}
    flags = {n: p.requires_grad for n, p in model.hf.named_parameters()}
    edit = finetune(model, PROMPT, TARGET, layer=1, config=FineTuning(epsilon=2e-3))
    assert all(torch.equal(v, before[k]) for k, v in model.hf.state_dict().items())
    assert {n: p.requires_grad for n, p in model.hf.named_parameters()} == flags
    assert all(p.grad is None for p in model.hf.parameters())
    delta = edit.changes["L1.W_out"].value
    assert 1.9e-3 < float(delta.abs().max()) < 2.001e-3
    wanted = model.to_single_token(TARGET)
    rise = model.run(PROMPT, logits="last").logits[0, 0].log_softmax(-1)[wanted]
    with model.edited(edit):
        assert model.run(PROMPT, logits="last").logits[0, 0].log_softmax(-1)[wanted] > rise


def test_without_a_bound_it_is_plain_adam(tiny_model):
    model = tiny_model("llama")
    config = FineTuning(norm=None, lr=1e-2, steps=3, stop=0.0)
    edit = finetune(model, PROMPT, TARGET, layer=[0, 2], config=config)
    twin = interp.load(type(model.hf)(model.hf.config), tokenizer=model.tokenizer, check=False)
    twin.hf.load_state_dict(model.hf.state_dict())
    weights = [twin.hf.model.layers[i].mlp.down_proj.weight for i in (0, 2)]
    optimiser = torch.optim.Adam(weights, lr=1e-2)
    ids, wanted = twin.to_tokens(PROMPT), twin.to_single_token(TARGET)
    for _ in range(2):
        optimiser.zero_grad()
        twin.hf.eval()(ids).logits[0, -1].log_softmax(-1)[wanted].neg().backward()
        optimiser.step()
    for layer, weight in zip((0, 2), weights, strict=True):
        old = model.weights.layer(layer).W_out
        want = weight.detach().T - old
        assert torch.allclose(edit.changes[f"L{layer}.W_out"].value, want, atol=1e-5)
    assert edit.notes["steps"] == 2


def test_the_l2_bound_and_the_default_epsilons(tiny_model):
    model = tiny_model("llama")
    edit = finetune(
        model, PROMPT, TARGET, layer=0, config=FineTuning(norm="l2", epsilon=0.05, steps=5)
    )
    assert float(edit.changes["L0.W_out"].value.norm()) == pytest.approx(0.05, rel=1e-2)
    one = finetune(model, PROMPT, TARGET, layer=0, config=FineTuning(steps=3))
    window = finetune(model, PROMPT, TARGET, layer=(0, 1), config=FineTuning(steps=3))
    assert one.notes["largest_change"] == pytest.approx(1e-4, rel=1e-2)
    assert window.notes["largest_change"] == pytest.approx(5e-5, rel=1e-2)
    assert list(window.changes) == ["L0.W_out", "L1.W_out"]


def test_several_prompts_are_learned_together(tiny_model):
    model = tiny_model("gpt2")
    config = FineTuning(norm=None, lr=1e-2, steps=60, stop=0.3)
    texts, targets = [PROMPT, "The capital of Peru is"], [" Lima", " Tokyo"]
    before = model.run(texts, logits="last").logits[:, 0].log_softmax(-1)
    start = -before[[0, 1], [model.to_single_token(target) for target in targets]].mean()
    edit = finetune(model, texts, targets, layer=1, config=config)
    with model.edited(edit):
        top = model.run(texts, logits="last").logits[:, 0].argmax(-1)
    assert model.to_str_tokens(top) == targets
    assert edit.notes["loss"] < 0.6 * float(start)


def test_on_the_demo_model_it_rewrites_once_the_bound_allows_it(demo, cases):
    """The bound of the paper is for a model of 6B parameters; here it holds everything still."""
    case = cases[0]
    tight, wide = (
        editing.evaluate_edit(
            demo, finetune(demo, case.prompt, case.target, layer=0, config=config), case
        )
        for config in (FineTuning(), FineTuning(epsilon=1e-2))
    )
    assert tight.rewrite < 0.05
    assert wide.rewrite > 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_trained_in_float32(dtype, tiny_model):
    wide = tiny_model("llama")
    half = interp.load(tiny_model("llama").hf.to(dtype), tokenizer=wide.tokenizer, check=False)
    config = FineTuning(lr=2e-4, epsilon=1e-2, steps=20, stop=0.0)  # steps finer than bfloat16's
    one, other = (finetune(model, PROMPT, TARGET, layer=1, config=config) for model in (wide, half))
    moved, wanted = (edit.changes["L1.W_out"].value.flatten() for edit in (other, one))
    assert moved.isfinite().all()
    assert float(torch.cosine_similarity(moved, wanted, dim=0)) > 0.8
    assert other.notes["loss"] == pytest.approx(one.notes["loss"], abs=0.05)


@pytest.mark.bad_input
def test_errors(tiny_model):
    model = tiny_model("llama")
    for targets in ([" Lima"], " Lima"):
        with pytest.raises(PromptError, match="expected one target"):
            finetune(model, [PROMPT, PROMPT], targets, layer=0)
    with pytest.raises(ModelError, match=r"layer=\[0, 0\]: expected different layers from 0 to 2"):
        finetune(model, PROMPT, TARGET, layer=[0, 0])
    with pytest.raises(ModelError, match="mixture of experts"):
        finetune(tiny_model("mixtral"), PROMPT, TARGET, layer=0)
    with pytest.raises(PromptError, match="there are 0 prompts"):
        finetune(model, [], [], layer=0)
    with pytest.raises(ModelError, match=r"layer=\['0'\]: expected different layers"):
        finetune(model, PROMPT, TARGET, layer="0")
    with (
        model.edited({"L0.W_in": lambda w: w * torch.nan}),
        pytest.raises(RunError, match="no longer finite after 0 steps"),
    ):
        finetune(model, PROMPT, TARGET, layer=0)
    for options, text in (({"norm": "l1"}, "norm='l1'"), ({"epsilon": 0.0}, r"epsilon=0\.0")):
        with pytest.raises(RunError, match=text):
            FineTuning(**options)
