"""The weights of a dictionary under an affine change of what it reads or writes.

x = s · x' + o      →   enc' = enc · s,   b_enc' = b_enc + enc @ o
y' = s · y + o      →   dec' = s · dec,   b_dec' = s · b_dec + o
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary

__all__ = ["rebuilt", "reread", "rewrite", "shift_pre", "state_of"]


def state_of(dictionary: Dictionary) -> dict[str, Tensor]:
    """Its weights, in float32 or better."""
    dtype = torch.promote_types(dictionary.dtype, torch.float32)
    return {name: t.detach().to(dtype) for name, t in dictionary.state_dict().items()}


def rebuilt(dictionary: Dictionary, state: dict[str, Tensor], **changes: Any) -> Dictionary:
    """The same kind of dictionary with these weights, in its own dtype, where it stood."""
    own = {name: tensor.to(dictionary.dtype) for name, tensor in state.items()}
    made = Dictionary.of(replace(dictionary.spec, **changes), own).to(dictionary.device)
    made.training_record = dictionary.training_record
    return made


def reread(
    dictionary: Dictionary,
    state: dict[str, Tensor],
    scale: Float[Tensor, "layer #d_in"],
    offset: Float[Tensor, "layer #d_in"],
) -> None:
    """Have the weights read x', where ``x = scale · x' + offset``."""
    for i in range(len(dictionary.parts)):
        enc = state[f"parts.{i}.enc"]
        shift_pre(state, f"parts.{i}.", enc @ offset[i].expand(dictionary.d_in))
        state[f"parts.{i}.enc"] = enc * scale[i]
    if dictionary.W_skip is not None:
        skip = state["W_skip"]
        state["b_dec"] = state["b_dec"] + skip @ offset[0].expand(dictionary.d_in)
        state["W_skip"] = skip * scale[0]


def shift_pre(state: dict[str, Tensor], part: str, shift: Float[Tensor, " d_sae"]) -> None:
    """Add to the pre-activations; the magnitude of a gated dictionary has a bias of its own."""
    state[part + "b_enc"] = state[part + "b_enc"] + shift
    if part + "activation.b_mag" in state:
        grown = shift * state[part + "activation.r_mag"].exp()
        state[part + "activation.b_mag"] = state[part + "activation.b_mag"] + grown


def rewrite(
    dictionary: Dictionary,
    state: dict[str, Tensor],
    scale: Float[Tensor, "layer 1"],
    offset: Float[Tensor, "layer #d_out"],
) -> None:
    """Have the weights write ``scale · y + offset``."""
    n, width = len(dictionary.parts), dictionary.d_out
    for i in range(n):
        blocks = state[f"parts.{i}.dec"].unflatten(-1, (n - i, width))
        state[f"parts.{i}.dec"] = (blocks * scale[i:]).flatten(-2)
    b_dec = state["b_dec"].unflatten(-1, (n, width))
    state["b_dec"] = (b_dec * scale + offset).flatten()
    if dictionary.W_skip is not None:
        state["W_skip"] = state["W_skip"] * scale[0]
