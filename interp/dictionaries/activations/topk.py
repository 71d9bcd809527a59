"""TopK: the k largest pre-activations of each input (Gao et al. 2024, §2.3)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.activations.activation import Activation
from interp.errors import DictionaryError

__all__ = ["TopK", "whole_k"]


class TopK(Activation):
    """The k largest of each row, those of them that are positive; all others are 0."""

    name = "topk"

    def __init__(self, d_sae: int, *, k: int) -> None:
        super().__init__()
        self.k = whole_k(k, d_sae)

    def options(self) -> dict[str, Any]:
        return {"k": self.k}

    def forward(
        self, pre: Float[Tensor, "*rows d_sae"], b_enc: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*rows d_sae"]:
        values, features = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, features, values.relu())


def whole_k(k: object, d_sae: int) -> int:
    """``k`` as a number of features that are there.

    Raises:
        DictionaryError: it is none.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= d_sae:
        raise DictionaryError(f"k={k!r}; expected a whole number from 1 to d_sae={d_sae}.")
    return k
