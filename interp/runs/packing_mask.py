"""The mask of packed rows, in the form in which a family's own layers take theirs.

Hugging Face hands a prepared mask on as it is, to layers with a sliding window too: the window must be
in it. Families that mix both kinds of layers take one mask for each kind, by its name.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import RunError
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["packing_mask"]

#: Families that count positions by ALiBi always; others say so in their config.
_ALIBI: Final = ("bloom", "mpt")

Mask = Float[Tensor, "batch one pos key"]


def packing_mask(anatomy: Anatomy, batch: TokenBatch) -> Mask | dict[str, Mask]:
    """What is added to the scores: 0 where a token may attend, else the least number.

    A text's tokens stand side by side in its row, so a window over columns is one over the text.

    Raises:
        RunError: the family makes its positions of a mask of padding.
    """
    config: Any = anatomy.hf.config.get_text_config()
    if config.model_type in _ALIBI or getattr(config, "alibi", False):
        raise RunError(
            f"{anatomy.name} counts positions by ALiBi, from the padding, and takes no mask of packed "
            "rows: give each text a row of its own."
        )
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    allowed = batch.may_attend(causal=anatomy.causal)
    dtype = next(anatomy.hf.parameters()).dtype
    if window and kinds and "sliding_attention" in kinds:
        near = _near(allowed, window)
        return {
            kind: _added(near if kind == "sliding_attention" else allowed, dtype)
            for kind in dict.fromkeys(kinds)
        }
    return _added(_near(allowed, window) if window and not kinds else allowed, dtype)


def _near(allowed: Bool[Tensor, "batch pos key"], window: int) -> Bool[Tensor, "batch pos key"]:
    """Those of the keys that lie within the window: the token itself and ``window - 1`` before it."""
    return allowed & torch.ones_like(allowed[0]).triu(1 - window)


def _added(allowed: Bool[Tensor, "batch pos key"], dtype: torch.dtype) -> Mask:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]
