"""Dead features drawn anew (Bricken et al. 2023, "Neuron resampling").

A dead feature gets the direction of a token that is badly reconstructed, drawn with probability in
proportion to its squared loss: to read, the token's input at a fifth of the living features' average
norm; to write, what is missing from its reconstruction. Its moments in Adam start from nothing. Where
features are picked by rank one at a fifth would never be picked: there it gets the whole norm. A
threshold becomes the living features' average, shrunk as the norm is, and a gate starts anew: what
kept the feature silent would do so again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.dictionaries.activations import JumpReLU
from interp.dictionaries.dictionary import Dictionary

__all__ = ["resample"]


@torch.no_grad()
def resample(
    dictionary: Dictionary,
    xs: Sequence[Float[Tensor, "row d_in"]],
    error: Float[Tensor, "row width"],
    dead: Sequence[Bool[Tensor, " d_sae"]],
    generator: torch.Generator,
    *,
    share: float = 0.2,
) -> list[tuple[Tensor, Tensor]]:
    """Draw dead features anew, to read at ``share`` of the living features' norm.

    Returns:
        Pairs of a parameter and its rows that were drawn, whose moments are to be cleared.
    """
    changed: list[tuple[Tensor, Tensor]] = []
    loss = error.square().sum(-1).double().cpu()
    parts = dictionary.parts
    for part, x, asleep in zip(parts, xs, dead, strict=True):
        index = asleep.nonzero()[:, 0]
        if not len(index) or float(loss.sum()) <= 0:
            continue
        again = len(index) > int((loss > 0).sum())  # else no two features are born equal
        drawn = torch.multinomial(loss.square(), len(index), again, generator=generator)
        drawn = drawn.to(x.device)
        token = dictionary.centred(x)[drawn]
        missing = error[drawn][:, error.shape[1] - part.dec.shape[1] :]
        awake = part.enc[~asleep].norm(dim=-1)
        norm = awake.mean() if len(awake) else part.enc.new_ones(())
        part.enc[index] = token / token.norm(dim=-1, keepdim=True).clamp(min=1e-12) * norm * share
        part.dec[index] = missing / missing.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        part.b_enc[index] = 0
        own = list(part.activation.parameters())
        for parameter in own:
            jump = isinstance(part.activation, JumpReLU) and bool(len(awake))
            parameter[index] = parameter[~asleep].mean() * share if jump else 0.0
        changed += [(one, index) for one in (part.enc, part.dec, part.b_enc, *own)]
    return changed
