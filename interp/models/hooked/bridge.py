"""The plain model inside a TransformerLens bridge.

``TransformerBridge`` wraps a Hugging Face model in place: every part of ``bridge.original_model`` is replaced
by a component that holds the part. :func:`unwrapped` builds the model's own class anew, without weights,
and puts the held parameters at their places: the same tensors, not copies, in the model as Hugging
Face made it, with the attention kernel it has by default. The bridge is not touched.

``enable_compatibility_mode()`` rewrites weights (norms folded, biases moved to where the class has none,
fused projections left behind). Where the class can still hold them, the above works; else the
weights in TransformerLens's names are copied into a model of our own. Whichever it is, the logits are compared
(:mod:`.proof`), and a bridge that is neither is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from interp.errors import ModelError
from interp.models.hooked.convert import from_weights
from interp.models.hooked.fields import DEFAULTS, SIZES, described
from interp.models.hooked.proof import allowed, deviation

__all__ = ["from_bridge"]

#: What TransformerLens's own small models (``boot_native``) read of their config.
_NATIVE: Final = (
    *SIZES, "d_vocab", "d_vocab_out", "n_heads", "d_mlp", "n_key_value_heads", "act_fn", "gated_mlp",
    "attn_only", "normalization_type", "final_rms", "eps", "positional_embedding_type", "rotary_dim",
    "rotary_base", "attention_dir", "attn_scores_soft_cap", "output_logits_soft_cap", "model_name",
)  # fmt: skip
_PRE: Final = {"LNPRE": "LNPre", "RMSPRE": "RMSPre"}


def from_bridge(bridge: Any) -> Any:
    """A Hugging Face model that computes what a bridge computes.

    Raises:
        ModelError: none was found.
    """
    original = bridge.original_model
    if len(set((getattr(original, "hf_device_map", None) or {}).values())) > 1:
        raise ModelError(
            "this bridge's model is spread over several devices (device_map): give interp.load the "
            "checkpoint with device='auto' instead."
        )
    ways = {
        "its Hugging Face class": _unwrapped,
        "its weights in TransformerLens's names": _by_weights,
    }
    failed: list[str] = []
    for name, way in ways.items():
        try:
            hf, loose = way(bridge)
            found, dtype = deviation(hf, bridge)
        except Exception as error:  # a class that does not fit can fail in any way
            failed.append(f"by {name}: {error}".removesuffix("."))
            continue
        if found <= allowed(dtype, loose=loose):
            return hf
        failed.append(f"by {name}: the logits deviate by {found:.1e} of their size")
    raise ModelError(
        f"this TransformerBridge of a {type(original).__name__} cannot be turned back into a plain "
        "model: its weights were processed (enable_compatibility_mode), or its hooks change the run. "
        "Load it before that, with enable_compatibility_mode(no_processing=True), or from the "
        "checkpoint. Tried " + "; ".join(failed) + "."
    )


def _unwrapped(bridge: Any) -> tuple[Any, bool]:
    """The original model's class with its own parameters, free of the bridge's components."""
    original = bridge.original_model
    if not hasattr(type(original), "_from_config"):
        raise ModelError(f"a {type(original).__name__} is no Hugging Face model")
    config = copy.deepcopy(original.config)
    config._attn_implementation_internal = (
        None  # a bridge asks for eager attention; this, for the best
    )
    with torch.device("meta"):
        plain = type(original)._from_config(config)
    for path, module in plain.named_modules():
        held = _held(original, path)
        for own, theirs in (
            (module._parameters, held._parameters), (module._buffers, held._buffers),
        ):  # fmt: skip
            own.update({name: theirs[name] for name, value in own.items() if value is not None})
    return plain.eval(), False


def _held(root: nn.Module, path: str) -> nn.Module:
    """The module that the bridge's components hold at a path of the plain model."""
    found = _inner(root)
    for part in path.split(".") if path else ():
        found = _inner(found._modules[part])  # type: ignore[arg-type]
    return found


def _inner(module: nn.Module) -> nn.Module:
    while isinstance(held := getattr(module, "original_component", None), nn.Module):
        module = held
    return module


def _by_weights(bridge: Any) -> tuple[Any, bool]:
    """A model of our own from the bridge's config and its weights in TransformerLens's names."""
    native = type(bridge.original_model).__name__ == "NativeModel"
    cfg = _native(vars(bridge.cfg)) if native else _hugging_face(vars(bridge.cfg))
    weights = dict(bridge.tl_parameters())
    if cfg["attn_only"]:  # it names MLPs of zeros there
        weights = {name: value for name, value in weights.items() if ".mlp." not in name}
    groups = cfg["n_heads"] // (cfg["n_key_value_heads"] or cfg["n_heads"])
    for name, value in weights.items():  # it repeats key-value heads for each query head
        if name.endswith((".W_K", ".W_V", ".b_K", ".b_V")) and value.shape[0] == cfg["n_heads"]:
            weights[name] = value[::groups]
    dtype = next(iter(bridge.original_model.parameters())).dtype
    return from_weights(cfg, weights, dtype=dtype), native


def _hugging_face(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The bridge's own fields, with the rotation that it leaves to Hugging Face's config."""
    given, rotation = described(cfg), cfg.get("rope_parameters") or {}
    if "partial_rotary_factor" in rotation:
        given["rotary_dim"] = int(given["d_head"] * rotation["partial_rotary_factor"])
    given["rotary_base"] = rotation.get("rope_theta", given["rotary_base"])
    return given


def _native(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What ``NativeModel`` computes, in the terms of a HookedTransformer's config."""
    if cfg.get("rope_scaling"):
        raise ModelError(f"cfg.rope_scaling={cfg['rope_scaling']!r} is not written here")
    given = {**DEFAULTS, **{name: cfg[name] for name in _NATIVE if name in cfg}}
    given["act_fn"] = (given["act_fn"] or ("silu" if given["gated_mlp"] else "gelu")).lower()
    given["act_fn"] = {"swish": "silu"}.get(given["act_fn"], given["act_fn"])
    if given["normalization_type"] is not None:
        kind = given["normalization_type"].upper()
        given["normalization_type"] = _PRE.get(kind, kind)
    scaled = cfg.get("use_attn_scale", True) and cfg.get("attn_scale", -1.0) > 0
    given["attn_scale"] = cfg["attn_scale"] if scaled else -1.0
    given["rotary_adjacent_pairs"] = True
    return given
