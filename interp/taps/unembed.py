"""From the residual stream to logits, through the model's own modules.

Final norm, output projection (OPT), unembedding, logit multiplier (Granite) and
soft-cap (Gemma-2), in the order in which the family's forward applies them.
:func:`proves` compares with a real forward pass, so a family whose head does
something else is refused rather than read wrongly.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.taps.anatomy import Anatomy

__all__ = ["unembed"]


def unembed(
    anatomy: Anatomy,
    resid: Float[Tensor, "*batch d_model"],
    *,
    softcap: bool = True,
    columns: Int[Tensor, " column"] | None = None,
    normed: bool = False,
) -> Float[Tensor, "*batch d_vocab"]:
    """Logits that this residual stream would give if it were the last one.

    Args:
        softcap: apply the family's final soft-cap where it has one.
        columns: the vocabulary columns wanted, None for all.
        normed: ``resid`` is what the final norm has already written.
    """
    config = anatomy.hf.config.get_text_config()
    head: Any = anatomy.hf.get_output_embeddings()
    project: Any = getattr(anatomy.decoder, "project_out", None)
    x = resid if normed or anatomy.ln_final is None else anatomy.ln_final(resid)
    x = x if project is None else project(x)
    if columns is None:
        logits = head(x)
    else:
        bias = None if head.bias is None else head.bias[columns]
        logits = nn.functional.linear(x, head.weight[columns], bias)
    scaling = getattr(config, "logits_scaling", None)
    logits = logits / scaling if scaling else logits
    cap = getattr(config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap and softcap else logits
