"""HookedTransformers of many configurations, with weights large enough that each part matters."""

from __future__ import annotations

from typing import Any

import torch

from tests.cases.loading import quiet

__all__ = ["GRID", "IDS", "VOCAB", "build", "native"]

VOCAB = 20
IDS = torch.randint(0, VOCAB, (3, 10), generator=torch.Generator().manual_seed(1))
_BASE = {"d_model": 16, "d_head": 4, "n_heads": 4, "n_layers": 2, "n_ctx": 12, "d_vocab": VOCAB,
         "act_fn": "relu", "device": "cpu"}  # fmt: skip
_ROTARY = {"positional_embedding_type": "rotary"}
_LOCAL = {"use_local_attn": True, "window_size": 3}
_AFTER = {"use_normalization_before_and_after": True}

#: What each configuration changes.
GRID: dict[str, dict[str, Any]] = {
    **{f"norm {kind}": {"normalization_type": kind}
       for kind in (None, "LN", "LNPre", "RMS", "RMSPre")},
    **{name: {"act_fn": name} for name in ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh",
                                           "silu", "relu2", "solu", "solu_ln")},
    "solu_ln, final RMS": {"act_fn": "solu_ln", "normalization_type": "LNPre", "final_rms": True},
    "gated": {"gated_mlp": True, "act_fn": "silu"},
    "attention only": {"attn_only": True, "act_fn": None},
    "attention only, no norms": {"attn_only": True, "act_fn": None, "normalization_type": None},
    "attention only, LNPre": {"attn_only": True, "act_fn": None, "normalization_type": "LNPre"},
    "bidirectional": {"attention_dir": "bidirectional"},
    "bidirectional, rotary": {"attention_dir": "bidirectional", **_ROTARY},
    "output vocabulary": {"d_vocab_out": 5},
    "larger output vocabulary": {"d_vocab_out": 30},
    "rotary": _ROTARY,
    "partly rotary": {**_ROTARY, "rotary_dim": 2},
    "rotary in pairs": {**_ROTARY, "rotary_adjacent_pairs": True, "rotary_base": 500},
    "rotary, stretched": {**_ROTARY, "rotary_scaling_factor": 4.0},
    "parallel": {"parallel_attn_mlp": True},
    "grouped": {"n_key_value_heads": 2},
    "one key-value head": {"n_key_value_heads": 1, **_ROTARY},
    "no scale": {"use_attn_scale": False},
    "own scale": {"attn_scale": 7.0},
    "scale by layer": {"scale_attn_by_inverse_layer_idx": True},
    "capped scores": {"attn_scores_soft_cap": 2.0},
    "capped logits": {"output_logits_soft_cap": 1.5},
    "norms of q and k": {"use_qk_norm": True},
    "RMS behind branches": {**_AFTER, "normalization_type": "RMS"},
    "RMSPre, and RMS behind branches": {**_AFTER, "normalization_type": "RMSPre"},
    "windows": {**_LOCAL, "attn_types": ["global", "local"]},
    "windows, rotary": {**_LOCAL, "attn_types": ["global", "local"], **_ROTARY,
                        "rotary_base_local": 100.0, "rotary_scaling_factor": 2.0},
    "heads not of d_model": {"n_heads": 3},
    "one head": {"n_heads": 1},
    "one layer": {"n_layers": 1},
    "few neurons": {"d_mlp": 7},
    "hooks of its own switched on": {"use_split_qkv_input": True, "use_attn_result": True},
}  # fmt: skip


def build(case: str = "norm LN", *, dtype: torch.dtype = torch.float32, seed: int = 0, **more: Any
          ) -> Any:  # fmt: skip
    """A HookedTransformer of a configuration in :data:`GRID`, perhaps with more changes."""
    fields = {**_BASE, **GRID[case], "dtype": dtype, **more}
    with quiet(), torch.random.fork_rng(), torch.no_grad():
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        torch.manual_seed(seed)
        hooked = HookedTransformer(HookedTransformerConfig(**fields))
        for name, parameter in hooked.named_parameters():
            noise = torch.randn(parameter.shape).to(dtype) * 0.3
            beside = fields.get("gated_mlp") and name.endswith("mlp.b_in")
            parameter.copy_(0 * noise if beside else noise + name.endswith(".w"))
    return hooked.requires_grad_(False)


def native(**changes: Any) -> Any:
    """A bridge around a small model of TransformerLens's own (``boot_native``)."""
    fields = {name: value for name, value in _BASE.items() if name != "device"}
    with quiet():
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge import TransformerBridge

        config = TransformerBridgeConfig(**{**fields, "seed": 0, **changes})
        return TransformerBridge.boot_native(config, dtype=changes.get("dtype"))
