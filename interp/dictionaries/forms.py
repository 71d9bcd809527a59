"""Dictionaries in another form that computes the same: scaled features, thresholds, centring."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.affine import rebuilt, shift_pre, state_of
from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError

__all__ = ["as_jumprelu", "scale_features", "unit_decoder", "with_centring"]


def unit_decoder(dictionary: Dictionary) -> Dictionary:
    """The same dictionary with decoder rows of norm 1, feature activations scaled to make up for it.

    A row of a cross-layer transcoder is all that a feature writes, to all layers. Rows of zeros stay.
    A BatchTopK dictionary becomes JumpReLU, as its one threshold becomes many.

    Raises:
        DictionaryError: TopK, whose choice of features depends on the scale of their activations.
    """
    if dictionary.spec.activation == "topk":
        raise DictionaryError(
            "scaling the features of a topk dictionary changes which k are the largest: its decoder "
            "cannot be normalised afterwards. Train with unit decoder rows."
        )
    if dictionary.spec.activation == "batchtopk":
        dictionary = as_jumprelu(dictionary)
    state = state_of(dictionary)
    n = len(dictionary.parts)
    norms = torch.stack([state[f"parts.{i}.dec"].norm(dim=-1) for i in range(n)])
    return scale_features(dictionary, torch.where(norms == 0, 1.0, norms))


def scale_features(dictionary: Dictionary, factor: Float[Tensor, "*layer d_sae"]) -> Dictionary:
    """Feature activations times ``factor``, decoder rows divided by it.

    A factor of 0 switches a feature off. Under TopK the factors change which features are chosen:
    what results is a dictionary that chooses by scaled activations.

    Raises:
        DictionaryError: a factor below 0, another shape, or BatchTopK, which has one threshold.
    """
    if dictionary.spec.activation == "batchtopk":
        raise DictionaryError(
            "a batchtopk dictionary has one threshold for all features: take as_jumprelu(dictionary)."
        )
    state = state_of(dictionary)
    factor = factor.reshape(-1, factor.shape[-1]).to(state["b_dec"])
    if factor.shape != (len(dictionary.parts), dictionary.d_sae) or bool((factor < 0).any()):
        raise DictionaryError(
            f"factors of shape {list(factor.shape)}; expected one for each of {dictionary.d_sae} "
            "features (of each layer), none below 0."
        )
    for i, own in enumerate(factor):
        part = f"parts.{i}."
        for name in ("b_enc", "activation.threshold", "activation.b_mag"):
            if part + name in state:
                state[part + name] = state[part + name] * own
        state[part + "enc"] = state[part + "enc"] * own[:, None]
        state[part + "dec"] = state[part + "dec"] / torch.where(own == 0, 1.0, own)[:, None]
    return rebuilt(dictionary, state)


def as_jumprelu(dictionary: Dictionary) -> Dictionary:
    """A ReLU or BatchTopK dictionary as JumpReLU, equal to the bit.

    ReLU is a threshold of 0; BatchTopK has one threshold for all features (Bussmann et al. 2024, §3).

    Raises:
        DictionaryError: gated or TopK, which are not of that form.
    """
    name = dictionary.spec.activation
    if name == "jumprelu":
        return dictionary
    if name not in ("relu", "batchtopk"):
        raise DictionaryError(
            f"a {name} dictionary is no JumpReLU: "
            + (
                "k features of each input, however small, are no threshold."
                if name == "topk"
                else "its gate and its magnitude have biases of their own."
            )
        )
    state = state_of(dictionary)
    for i in range(len(dictionary.parts)):
        old = state.get(f"parts.{i}.activation.threshold", torch.zeros(()))
        value = old.to(state["b_dec"])
        state[f"parts.{i}.activation.threshold"] = value.expand(dictionary.d_sae).clone()
    return rebuilt(dictionary, state, activation="jumprelu", options={})


def with_centring(dictionary: Dictionary, centre: bool) -> Dictionary:
    """The same SAE with or without ``b_dec`` subtracted from its input; ``b_enc`` makes up for it.

    Raises:
        DictionaryError: it is no SAE.
    """
    if dictionary.spec.centre == centre:
        return dictionary
    if dictionary.kind != "sae":
        raise DictionaryError(f"a {dictionary.kind} has no b_dec on the side that it reads.")
    state = state_of(dictionary)
    sign = 1.0 if centre else -1.0
    shift_pre(state, "parts.0.", state["parts.0.enc"] @ (sign * state["b_dec"]))
    return rebuilt(dictionary, state, centre=centre)
