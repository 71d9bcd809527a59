"""How far heads are on their way to an induction circuit: two numbers for each head.

Source:
    Singh et al. 2024, arXiv:2404.07129, section 3 (induction strength) and appendix (previous-token
    attention).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ToyError
from interp.toys.batch import Batch
from interp.toys.toy import Toy

__all__ = ["induction_strength", "previous_token_strength"]


@torch.no_grad()
def induction_strength(toy: Toy, batch: Batch, *, layer: int = -1) -> Float[Tensor, " head"]:
    """Attention from the query to the right label less that to the other label, a mean over sequences.

    1: all attention is on the right label; 0: both get the same; -1: all is on the wrong one.

    Raises:
        ToyError: the batch does not say where its labels are.
    """
    if not {"correct", "incorrect"} <= batch.facts.keys():
        raise ToyError(
            f"induction_strength needs the facts 'correct' and 'incorrect'; the batch has "
            f"{', '.join(batch.facts) or 'none'}."
        )
    site = f"L{layer}.pattern"
    last = toy.run(batch.inputs, save=site, logits="none").saved[site][:, :, -1]
    right, wrong = (
        last.gather(-1, batch.facts[name].view(-1, 1, 1).expand(-1, last.shape[1], 1))[..., 0]
        for name in ("correct", "incorrect")
    )
    return (right - wrong).mean(0)


@torch.no_grad()
def previous_token_strength(
    toy: Toy, batch: Batch, *, layer: int = 0, queries: slice = slice(1, None)
) -> Float[Tensor, " head"]:
    """Attention to the token before, a mean over sequences and positions: 0 to 1.

    Args:
        queries: the positions that look back; ``slice(1, None, 2)`` are the labels of e l e l q. The first
            position has none before it and is left out.

    Raises:
        ToyError: there is no other position among them.
    """
    site = f"L{layer}.pattern"
    pattern = toy.run(batch.inputs, save=site, logits="none").saved[site]
    behind = pattern.diagonal(-1, 2, 3)  # [batch, head, query - 1]
    chosen = [query - 1 for query in range(pattern.shape[-1])[queries] if query > 0]
    if not chosen:
        raise ToyError(
            f"queries={queries} of {pattern.shape[-1]} positions: none has a token before it."
        )
    return behind[..., chosen].mean((0, 2))
