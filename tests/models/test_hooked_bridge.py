"""TransformerBridges through interp.load: the plain model inside, exactly, or an error."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import ModelError
from tests import tiny
from tests.cases.loading import quiet
from tests.models.hooked import IDS, native

TOKENS = tiny.tokens()


def bridged(family, *, mode=None):
    """A bridge around a tiny model; ``mode`` are arguments of enable_compatibility_mode."""
    with quiet():
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        hf = tiny.build(family)
        bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
        if mode is not None:
            bridge.enable_compatibility_mode(**mode)
    return bridge


def off(model, bridge, ids=TOKENS):
    with quiet(), torch.no_grad():
        return float((model.run(ids).logits - bridge(ids)).abs().max())


RAW = ("gpt2", "gpt_neox", "llama", "gemma2", "opt", "bloom", "mixtral")


@pytest.mark.parametrize(
    ("family", "mode"), [*((name, None) for name in RAW), ("gpt2", {"no_processing": True})]
)
def test_the_model_inside_a_bridge_is_found_again(family, mode):
    bridge = bridged(family, mode=mode)
    with quiet():
        model = interp.load(bridge)
    assert model.anatomy.name == family
    assert off(model, bridge) < 1e-5
    plain = interp.load(tiny.shared(family))
    assert torch.equal(model.run(TOKENS).logits, plain.run(TOKENS).logits)
    assert model.sites() == plain.sites()
    assert {type(part).__module__.partition(".")[0] for part in model.hf.modules()} <= {
        "transformers", "torch",
    }  # fmt: skip


def test_weights_are_shared_and_the_bridge_is_not_touched():
    bridge = bridged("gpt2")
    before = [type(part) for part in bridge.original_model.modules()]
    model = interp.load(bridge)
    assert [type(part) for part in bridge.original_model.modules()] == before
    inside = {p.data_ptr() for p in bridge.original_model.parameters()}
    assert {p.data_ptr() for p in model.hf.parameters()} <= inside
    assert not model.hf.training
    assert model.hf.config is not bridge.original_model.config


@pytest.mark.parametrize(("family", "kind"), [
    ("llama", "llama"), ("gemma2", "gemma2"), ("gpt2", "hooked_transformer"),
    ("gpt_neox", "hooked_transformer"), ("qwen2", "hooked_transformer"),
])  # fmt: skip
def test_processed_weights_come_in_the_class_that_can_hold_them(family, kind):
    bridge = bridged(family, mode={})
    with quiet():
        model = interp.load(bridge)
    assert model.anatomy.name == kind
    assert off(model, bridge) < 1e-5


def test_a_bridge_that_is_neither_is_refused_with_the_reason():
    bridge = bridged("bloom", mode={})
    with (
        quiet(),
        pytest.raises(
            ModelError, match="cannot be turned back.*were processed.*no_processing=True.*alibi"
        ),
    ):
        interp.load(bridge)


def test_hooks_that_change_a_bridges_run_are_refused():
    bridge = bridged("llama")
    bridge.add_hook("blocks.0.hook_out", lambda x, hook: x * 0)
    with quiet(), pytest.raises(ModelError, match="its hooks change the run"):
        interp.load(bridge)


def test_the_tokenizer_comes_along(bpe_tokenizer):
    bridge = bridged("gpt2")
    bridge.tokenizer = bpe_tokenizer
    model = interp.load(bridge)
    assert model.tokenizer is bpe_tokenizer
    assert model.name == "TransformerBridge"


@pytest.mark.parametrize("changes", [
    {}, {"normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu", "n_key_value_heads": 2,
         "positional_embedding_type": "rotary", "final_rms": True},
    {"normalization_type": None, "attn_only": True, "attention_dir": "bidirectional", "d_vocab_out": 5},
    {"normalization_type": "LNPre", "attn_scores_soft_cap": 2.0, "act_fn": "gelu_new"},
    {"dtype": torch.float64},
], ids=["plain", "llama-like", "attention only", "LNPre", "float64"])  # fmt: skip
def test_transformer_lenss_own_small_models(changes):
    bridge = native(**changes)
    with quiet():
        model = interp.load(bridge)
    assert model.anatomy.name == "hooked_transformer"
    assert model.dtype is changes.get("dtype", torch.float32)
    assert off(model, bridge, IDS) < 1e-5


def test_defect_2_of_bridges_is_not_ours():
    """Writing attention's pattern acts, where the bridge's hook changes nothing (OPT)."""
    model = interp.load(bridged("opt"))
    base = model.run(TOKENS).logits
    assert not torch.equal(model.run(TOKENS, edit={"L0.pattern": interp.Zero()}).logits, base)
    moved = model.run(TOKENS, edit={"L0.resid_mid": interp.Zero()}, save="L0.resid_post")
    assert torch.allclose(
        moved.cache["L0.resid_post"],
        model.run(TOKENS, edit={"L0.resid_mid": interp.Zero()}, save="L0.mlp_out").cache[
            "L0.mlp_out"
        ],
        atol=1e-6,
    )
