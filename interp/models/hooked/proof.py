"""The same tokens through both models: a model is taken over only if its logits are the source's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import ModelError

__all__ = ["allowed", "deviation", "prove_same"]

#: Largest difference of logits, as a share of the largest logit (of 1, if that is smaller).
_TOLERANCE: Final = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE: Final = 5e-2

Logits = Callable[[Int[Tensor, "batch pos"]], Tensor]


@torch.no_grad()
def deviation(hf: Any, theirs: Logits) -> tuple[float, torch.dtype]:
    """Largest relative difference of logits on a few random tokens, and the dtype of theirs."""
    table: nn.Embedding = hf.get_input_embeddings()
    width = min(8, getattr(hf.config.get_text_config(), "max_position_embeddings", None) or 8)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, table.num_embeddings, (2, width), generator=draw)
    ids = ids.to(table.weight.device)
    right, given = theirs(ids), hf(ids).logits
    if right.shape != given.shape:
        raise ModelError(
            f"the model gives logits {list(right.shape)}, and what was made of its weights "
            f"{list(given.shape)}: its config does not describe it."
        )
    scale = right.abs().max().clamp(min=1.0)
    return float((given - right).abs().max() / scale), right.dtype


def allowed(dtype: torch.dtype, *, loose: bool = False) -> float:
    """How far two right ways of computing the same logits may lie apart.

    Args:
        loose: part of the source computes in float32, whatever its dtype.
    """
    tolerance = _TOLERANCE.get(dtype, _COARSE)
    return max(tolerance, _TOLERANCE[torch.float32]) if loose else tolerance


def prove_same(found: float, dtype: torch.dtype, what: str) -> None:
    """Raise unless the logits agree as well as two ways of computing them do in this dtype.

    Raises:
        ModelError: they do not; NaN is no agreement.
    """
    if not found <= allowed(dtype):
        raise ModelError(
            f"{what} cannot be taken over exactly: on a few tokens the logits deviate by {found:.1e} "
            f"of their size (allowed in {str(dtype).removeprefix('torch.')}: {allowed(dtype):.0e}). It has "
            "hooks of its own that change the run, parts that were changed after it was made, or "
            "weights that are not finite. Remove its hooks, or load the checkpoint it came from."
        )
