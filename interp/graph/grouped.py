"""Grouped-query attention: keys and values that several query heads share, one for each of them.

An edge into the keys of one query head can be ablated only if its group's other heads keep theirs.
So keys and values get a row for each query head before they are rotated and cached. Whether a
family's own code takes that is tried once: one projection may write q, k and v together (Phi-3,
Falcon), one norm may join all heads (OLMo-2), or the code may count on the number (StableLM).
There, the edges of a group's heads are ablated together or not at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.engine.kernels import replay_kernels
from interp.errors import GraphError
from interp.runs.execute import forward
from interp.taps.anatomy import Anatomy
from interp.taps.hooks import Fn
from interp.taps.points import Key, tapped
from interp.token_batch import TokenBatch

__all__ = ["by_query_head", "check_groups", "tells_heads_apart"]

_found: Final[WeakKeyDictionary[nn.Module, bool]] = WeakKeyDictionary()


def by_query_head(
    x: Float[Tensor, "row pos some d_head"], n_heads: int
) -> Float[Tensor, "row pos head d_head"]:
    """Keys or values with a row for each query head."""
    return x if x.shape[2] == n_heads else x.repeat_interleave(n_heads // x.shape[2], 2)


def tells_heads_apart(anatomy: Anatomy) -> bool:
    """Whether each query head can have keys and values of its own."""
    if anatomy.n_kv_heads == anatomy.n_heads:
        return True
    if anatomy.hf not in _found:
        own = replace(anatomy, splices=())  # what holds of the model holds with dictionaries in it
        _found[anatomy.hf] = anatomy.family.layout == "split" and _tried(own)
    return _found[anatomy.hf]


@torch.no_grad()
def _tried(anatomy: Anatomy) -> bool:
    """Whether the model computes the same with a row for each query head."""

    def expanded(x: Tensor) -> Tensor:
        return by_query_head(x, anatomy.n_heads)

    functions: dict[Key, Fn] = {
        (point, layer): expanded for point in "kv" for layer in range(anatomy.n_layers)
    }
    vocabulary = anatomy.hf.get_input_embeddings().num_embeddings
    device = anatomy.hf.get_input_embeddings().weight.device
    batch = TokenBatch.of(torch.arange(6, device=device)[None] % vocabulary)
    with replay_kernels(anatomy):
        plain = forward(anatomy, batch)
        try:
            with tapped(anatomy, functions):
                other = forward(anatomy, batch)
        except RuntimeError:  # shapes that the family's code does not take
            return False
    return torch.allclose(plain, other, rtol=1e-2, atol=1e-3 * float(plain.abs().max()))


def check_groups(anatomy: Anatomy, removed: Float[Tensor, "variant source head *position"]) -> int:
    """How many query heads share keys and values, if their edges are ablated alike.

    Raises:
        GraphError: they are not, and this model's heads cannot be told apart.
    """
    size = anatomy.n_heads // anatomy.n_kv_heads
    grouped = removed.unflatten(2, (-1, size))
    if not torch.equal(grouped, grouped[:, :, :, :1].expand_as(grouped)):
        raise GraphError(
            f"in a model of type {anatomy.name!r} groups of {size} query heads share keys and values in "
            "a way that cannot be taken apart: key and value edges of the heads of one group are "
            "ablated together or not at all. Ablate whole groups, or nodes."
        )
    return size
