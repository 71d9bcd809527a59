"""A HookedTransformer of the tiny GPT-2, its weights processed as TransformerLens does by default."""

from __future__ import annotations

from functools import cache

from tests import tiny

__all__ = ["hooked"]


@cache
def hooked():
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights

    hf = tiny.shared("gpt2")
    config = HookedTransformerConfig(
        n_layers=tiny.N_LAYERS, d_model=tiny.D_MODEL, n_ctx=tiny.N_CTX, d_head=8, n_heads=4,
        d_mlp=4 * tiny.D_MODEL, d_vocab=tiny.VOCAB, act_fn="gelu_new", normalization_type="LN",
        device="cpu",
    )  # fmt: skip
    theirs = HookedTransformer(config)
    theirs.load_and_process_state_dict(convert_gpt2_weights(hf, config))
    return theirs.requires_grad_(False)
