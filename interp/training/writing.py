"""What all parts of a dictionary write together, from dense feature activations."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["written"]


def written(
    acts: Sequence[Float[Tensor, "row d_sae"]],
    decoders: Sequence[Float[Tensor, "d_sae _"]],
    b_dec: Float[Tensor, " width"],
) -> Float[Tensor, "row width"]:
    """The sum over parts; a part of a cross-layer transcoder writes to the last of all sites."""
    out = b_dec
    for act, dec in zip(acts, decoders, strict=True):
        here = act @ dec
        out = out + functional.pad(here, (b_dec.shape[0] - here.shape[1], 0))
    return out.expand(len(acts[0]), -1)
