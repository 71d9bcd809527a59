"""Two independent oracles read the same tensors: TransformerLens's bridge, and nnsight."""

from copy import deepcopy

import pytest
import torch

import interp
from tests import tiny

POINTS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern",
          "ln1.normalized", "ln1.scale", "ln2.normalized", "mlp_post", "mlp_pre", "attn.input", "mlp.input")  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
@pytest.mark.filterwarnings("ignore")
def test_the_bridge_reads_the_same_tensors_under_the_same_names(family):
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    hf = tiny.shared(family)
    other = deepcopy(hf)
    bridge = build_bridge_from_module(other, type(other).__name__, hf_config=other.config)
    model, ids = interp.load(hf), tiny.tokens()
    run = model.run(ids, save="all")
    with torch.no_grad():
        logits, theirs = bridge.run_with_cache(ids)
    assert torch.allclose(run.logits, logits, atol=1e-4)
    compared = 0
    for point in POINTS:
        if point in model.anatomy.refused:
            continue
        name = interp.Site.parse(f"L1.{point}").hook_name
        if name not in theirs:
            continue
        ours, value = run.cache[name], theirs[name]
        if value.shape != ours.shape:
            value = value.reshape(ours.shape)
        assert torch.allclose(ours, value, atol=1e-4), point
        compared += 1
    assert compared >= 10


@pytest.mark.filterwarnings("ignore")
def test_nnsight_reads_the_same_tensors():
    from nnsight import NNsight

    hf, ids = tiny.shared("gpt2"), tiny.tokens()
    wrapped = NNsight(deepcopy(hf))
    with torch.no_grad(), wrapped.trace(ids):
        first = wrapped.transformer.h[0].output.save()
        hidden = wrapped.transformer.h[1].mlp.output.save()
        logits = wrapped.lm_head.output.save()
    run = interp.load(hf, check=False).run(ids, save=["L0.resid_post", "L1.mlp_out"])
    assert torch.equal(run.logits, logits)
    assert torch.equal(run.cache["L1.mlp_out"], hidden)
    assert torch.equal(run.cache["L0.resid_post"], first)
