"""ReLU with an L1 penalty weighted by the decoder's norms (Anthropic, April 2024 update)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.training.objectives.objective import Moment, Objective

__all__ = ["ReLUObjective"]


class ReLUObjective(Objective):
    """``λ Σᵢ fᵢ ‖W_dec,i‖₂``; with unit decoder rows this is λ‖f‖₁."""

    def penalty(
        self,
        dictionary: Dictionary,
        pres: Sequence[Float[Tensor, "row d_sae"]],
        acts: Sequence[Float[Tensor, "row d_sae"]],
        y: Float[Tensor, "row width"],
        moment: Moment,
    ) -> dict[str, Tensor]:
        terms = [
            (act @ part.dec.norm(dim=-1)).sum()
            for act, part in zip(acts, dictionary.parts, strict=True)
        ]
        return {"sparsity": moment.coefficient * torch.stack(terms).sum()}
