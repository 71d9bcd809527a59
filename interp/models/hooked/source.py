"""TransformerLens models, told by what they are called, and turned into Hugging Face ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from interp.errors import ModelError, warn

__all__ = ["adopt", "is_hooked"]

_HOOKED, _BRIDGE = "HookedTransformer", "TransformerBridge"
_OTHERS = ("HookedEncoder", "HookedEncoderDecoder", "HookedAudioEncoder")
_NAMELESS = (None, "", "custom", "external", "native")


def is_hooked(source: object) -> bool:
    """Whether something is a model of TransformerLens, which is not imported to find out."""
    return bool(_names(source) & {_HOOKED, _BRIDGE, *_OTHERS}) and hasattr(source, "cfg")


def adopt(source: Any) -> tuple[Any, Any, str]:
    """A Hugging Face model that computes what a TransformerLens model does, its tokenizer and name.

    A HookedTransformer's weights are copied; a bridge's are shared with it.

    Raises:
        ModelError: it is no decoder-only transformer, computes something that is not written here,
            or its logits are not those of what was made of it.
    """
    names = _names(source)
    if names & set(_OTHERS):
        raise ModelError(
            f"interp.load was given a {type(source).__name__}; expected a decoder-only transformer: a "
            "TransformerBridge or HookedTransformer of one, a Hugging Face model, a folder or a name."
        )
    if _BRIDGE in names:
        from interp.models.hooked.bridge import from_bridge

        hf, kind = from_bridge(source), _BRIDGE
    else:
        hf, kind = _from_hooked(source), _HOOKED
    tokenizer = getattr(source, "tokenizer", None)
    out = getattr(hf.config, "output_vocab_size", None)
    if tokenizer is not None and out not in (None, hf.config.vocab_size):
        tokenizer = None
        warn(
            f"this model answers in {out} columns that are no tokens of its tokenizer, which is left "
            "out: give token ids, and read ids. interp.load(..., tokenizer=...) takes one all the same."
        )
    name = getattr(source.cfg, "model_name", None)
    return hf, tokenizer, kind if name in _NAMELESS else str(name)


def _from_hooked(source: Any) -> Any:
    from interp.models.hooked.convert import from_weights
    from interp.models.hooked.proof import deviation, prove_same

    made = from_weights(vars(source.cfg), source.state_dict())

    def theirs(ids: Tensor) -> Tensor:
        mask = {} if source.tokenizer is None else {"attention_mask": ids.new_ones(ids.shape)}
        return source(ids, **mask)

    found, dtype = deviation(made, theirs)
    prove_same(found, dtype, f"this {type(source).__name__}")
    return made


def _names(source: object) -> set[str]:
    return {kind.__name__ for kind in type(source).__mro__}
