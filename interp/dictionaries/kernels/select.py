"""Which features are active: from activations to :class:`Codes`, a chunk of rows at a time.

The [batch, d_sae] matrix of pre-activations is never whole. For each chunk there is one product into
the same buffer, and the few entries that are kept leave it at once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.kernels.batch import select_batchtopk
from interp.dictionaries.kernels.chunks import chunk_rows, pre_activations
from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.screening import Screen
from interp.dictionaries.kernels.topk import exact_topk

__all__ = ["select_batchtopk", "select_topk"]


@torch.no_grad()
def select_topk(
    x: Float[Tensor, "rows d_in"],
    enc: Float[Tensor, "d_sae d_in"],
    b_enc: Float[Tensor, " d_sae"],
    k: int,
    *,
    screen: bool = False,
    chunk: int | None = None,
) -> Codes:
    """The ``k`` largest of ``relu(x @ encᵀ + b_enc)`` in each row (Gao et al. 2024, §2.3).

    Every row has ``k`` entries; where fewer are positive the others have value 0, of any feature.

    Args:
        screen: propose by a bfloat16 product and decide in float32 (:mod:`.screening`): the same
            features, up to float32 rounding, in half the time on a CPU with bfloat16 instructions.
        chunk: rows at a time; None for what suits the cache.

    Raises:
        DictionaryError: ``screen`` for other than float32 on a CPU.
    """
    x, enc, b_enc = x.detach(), enc.detach(), b_enc.detach()
    values = x.new_empty(len(x), k)
    features = torch.empty(len(x), k, dtype=torch.long, device=x.device)
    size = chunk_rows(x, enc, chunk, bytes_each=2 if screen else None)
    screened = Screen(x, enc, b_enc, size) if screen else None
    pre = None if screen else pre_activations(enc, b_enc, size)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        if screened is not None:
            found = screened.topk(rows, k)
        else:
            assert pre is not None
            found = exact_topk(pre(x[rows]), k)
        values[rows], features[rows] = found
    offsets = torch.arange(0, len(x) * k, k, device=x.device)
    return Codes(values.relu_().view(-1), features.view(-1), offsets, len(enc))
