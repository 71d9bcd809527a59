"""Experts of a toy: where tokens are sent, what each expert writes, and runs without some of them.

Switching an expert off takes it away from the router: its score becomes -∞ before the softmax, so the
next best expert takes its place and the others keep their proportions.

Source:
    switching off: Dahlke et al. 2025, "Mixture of Tunable Experts", arXiv:2502.11096.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ToyError
from interp.models.hooked.experts import HookedExperts
from interp.toys.toy import Toy

__all__ = ["Routing", "routing", "without_experts"]


@dataclass(frozen=True, eq=False)
class Routing:
    """Where a run sent its positions.

    Attributes:
        weights: share of each expert in what the block adds; 0 for those not chosen; sums to 1.
        chosen: the experts of each position, the largest share first.
        written: what each expert makes of each position, chosen or not.
    """

    weights: Float[Tensor, "layer batch pos expert"]
    chosen: Int[Tensor, "layer batch pos k"]
    written: Float[Tensor, "layer batch pos expert d_model"]

    def load(self) -> Float[Tensor, "layer expert"]:
        """Share of positions that each expert is chosen for; the rows sum to experts_per_token."""
        count = self.weights.shape[-1]
        hits = torch.nn.functional.one_hot(self.chosen, count).sum(-2)
        return hits.double().mean((1, 2))


@torch.no_grad()
def routing(toy: Toy, inputs: Tensor) -> Routing:
    """Run the toy, and see what its routers and experts do.

    Raises:
        ToyError: the toy has no experts.
    """
    blocks = _experts(toy)
    names = [f"L{layer}.mlp.input" for layer in range(len(blocks))]
    read = toy.run(inputs, save=names, logits="none").saved
    weights, chosen, written = [], [], []
    for name, block in zip(names, blocks, strict=True):
        shares, picked = block.route(read[name])
        weights.append(shares)
        chosen.append(picked)
        written.append(torch.stack([expert(read[name]) for expert in block.experts], -2))
    return Routing(torch.stack(weights), torch.stack(chosen), torch.stack(written))


@contextmanager
def without_experts(toy: Toy, off: Mapping[int, Sequence[int]]) -> Iterator[None]:
    """Runs of the toy, and of ``toy.model``, without some experts inside the ``with`` block.

    Args:
        off: layer → its experts that are switched off.

    Raises:
        ToyError: there is no such layer or expert, or fewer are left than each position passes.
    """
    blocks = _experts(toy)
    for layer, experts in off.items():
        if not 0 <= layer < len(blocks):
            raise ToyError(f"layer {layer} of a toy with {len(blocks)} layers.")
        count, needed = len(blocks[layer].experts), blocks[layer].chosen
        wrong = [one for one in experts if not 0 <= one < count]
        if wrong:
            raise ToyError(f"expert {wrong[0]} of layer {layer}: expected 0 to {count - 1}.")
        if count - len(set(experts)) < needed:
            raise ToyError(
                f"{len(set(experts))} of {count} experts of layer {layer} cannot be off: each position "
                f"passes through {needed}."
            )
    before = [block.off for block in blocks]
    try:
        for layer, experts in off.items():
            blocks[layer].off = tuple(sorted({*before[layer], *experts}))
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            block.off = old


def _experts(toy: Toy) -> list[HookedExperts]:
    found: list[Any] = [block.mlp for block in toy.anatomy.blocks]
    if not found or not all(isinstance(one, HookedExperts) for one in found):
        raise ToyError("this toy has no experts; make it with transformer(experts=..., d_mlp=...).")
    return found
