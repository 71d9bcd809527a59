"""TransformerLens takes the same stream apart and reads it along the same directions."""

import pytest
import torch

import interp
from interp.direct.decompose import decompose
from interp.direct.verb import logit_attribution
from tests import tiny
from tests.engine.cases import pairs
from tests.engine.test_peers import hooked


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.filterwarnings("ignore")
def test_transformer_lens_attributes_the_same(family):
    hf = tiny.shared(family)
    model, theirs = interp.load(hf, check=False), hooked(family, hf)
    prompts = pairs(model)
    answers, foils = prompts.answers[:, 0], prompts.foils[:, 0]
    with torch.no_grad():
        logits, cache = theirs.run_with_cache(prompts.clean.ids)
        theirs.unembed.W_U.mul_(theirs.ln_final.w[:, None])  # γ folded; β and b_U it leaves out

        def read(stack):
            return cache.logit_attrs(stack, tokens=answers, incorrect_tokens=foils, pos_slice=-1)

        parts, labels = cache.decompose_resid(pos_slice=-1, return_labels=True)
        heads, steps = cache.stack_head_results(pos_slice=-1), cache.accumulated_resid(pos_slice=-1)
        neurons, names = cache.stack_neuron_results(layer=-1, pos_slice=-1, return_labels=True)
        want = {"parts": read(parts), "heads": read(heads), "steps": read(steps),
                "neurons": read(neurons)}  # fmt: skip

    found = logit_attribution(model, prompts, by="head")
    whole = logit_attribution(model, prompts)
    few = logit_attribution(model, prompts, by="neuron", neurons=9)
    close = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(whole.per_prompt[:-1], want["parts"], **close)
    torch.testing.assert_close(found.heads().flatten(0, 1), want["heads"], **close)
    bias = found["bias"]
    torch.testing.assert_close(found.accumulated() - bias, want["steps"], **close)
    torch.testing.assert_close(found.total, (logits[:, -1].gather(1, prompts.answers)
                               - logits[:, -1].gather(1, prompts.foils))[:, 0], **close)  # fmt: skip
    for name in (name for name in few.names if ".N" in name):
        layer, unit = name.removeprefix("L").split(".mlp_post.N")
        torch.testing.assert_close(
            few[name], want["neurons"][names.index(f"L{layer}N{unit}")], **close
        )
    stack = decompose(model, prompts, position=-1)
    torch.testing.assert_close(stack.parts[:, :, 0], parts, **close)
    assert len(labels) == len(stack.names)
