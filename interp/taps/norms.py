"""What a normalisation layer computes inside: the scale it divides by, and the result.

TransformerLens's words: ``scale`` is the standard deviation (LayerNorm) or the
root mean square (RMSNorm) of a position, ``normalized`` the tensor after the
division and before γ and β. Neither exists as a tensor in the Hugging Face
modules, so both are computed here from the module's input, and an edit reaches
the model as a change of the module's output: ``Δout = γ · Δnormalized``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.taps.offload import fetched

__all__ = ["centres", "gamma", "normalise", "tap_norm"]

Fn = Callable[[Tensor], Tensor]


def _eps(norm: nn.Module) -> float:
    for name in ("eps", "variance_epsilon"):
        if isinstance(getattr(norm, name, None), float):
            return float(getattr(norm, name))
    return 1e-5  # OLMo's parameter-free LayerNorm fixes it in its code


def centres(norm: nn.Module) -> bool:
    """Whether the mean is subtracted first (LayerNorm) or not (RMSNorm)."""
    return isinstance(norm, nn.LayerNorm) or type(norm).__name__.endswith("LayerNorm")


def gamma(norm: nn.Module, offset: int) -> Float[Tensor, " d_model"] | float:
    """The factor after the division: ``weight``, ``1 + weight``, or 1 if there is none."""
    weight = fetched(norm, "weight")
    if weight is None:
        return 1.0
    return weight.to(torch.promote_types(weight.dtype, torch.float32)) + offset


def normalise(
    norm: nn.Module, x: Float[Tensor, "... d_model"]
) -> tuple[Float[Tensor, "... d_model"], Float[Tensor, "... 1"]]:
    """The centred input (not centred for RMSNorm) and the scale it is divided by, in float32."""
    x = x.to(torch.float32) if x.dtype in (torch.bfloat16, torch.float16) else x
    if centres(norm):
        x = x - x.mean(-1, keepdim=True)
    scale = (x.pow(2).mean(-1, keepdim=True) + _eps(norm)).sqrt()
    return x, scale


def tap_norm(
    norm: nn.Module,
    x: Float[Tensor, "... d_model"],
    out: Float[Tensor, "... d_model"],
    *,
    offset: int,
    on_scale: Fn | None,
    on_normalized: Fn | None,
) -> Float[Tensor, "... d_model"]:
    """Show ``scale`` and ``normalized`` to their functions and return the module's output.

    An unchanged tensor leaves the output equal to the bit; gradients flow through
    the tensors that the functions return.
    """
    centred, scale = normalise(norm, x)
    old, alias = centred / scale, scale.view_as(scale)
    new_scale = on_scale(alias) if on_scale else alias
    plain = new_scale is alias and not alias.requires_grad
    before = old.view_as(old) if plain else centred / new_scale
    new = on_normalized(before) if on_normalized else before
    if plain and new is before and not out.requires_grad:
        return out
    return out + ((new - old) * gamma(norm, offset)).to(out.dtype)
