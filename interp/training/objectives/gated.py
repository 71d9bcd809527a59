"""The gated loss (Rajamanoharan et al. 2024a, eq. 8).

The step of the gate has no gradient; it learns from an L1 penalty on its own ReLU, and from having to
reconstruct by that ReLU alone through a frozen copy of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.training.objectives.objective import Moment, Objective
from interp.training.weighting import row_weights
from interp.training.writing import written

__all__ = ["GatedObjective"]


class GatedObjective(Objective):
    """Penalty ``λ Σᵢ ReLU(gateᵢ)‖W_dec,i‖`` and the auxiliary reconstruction by the gates."""

    def penalty(
        self,
        dictionary: Dictionary,
        pres: Sequence[Float[Tensor, "row d_sae"]],
        acts: Sequence[Float[Tensor, "row d_sae"]],
        y: Float[Tensor, "row width"],
        moment: Moment,
    ) -> dict[str, Tensor]:
        gates = [pre.relu() for pre in pres]
        decoders = [part.dec.detach() for part in dictionary.parts]
        norms = [dec.norm(dim=-1) for dec in decoders]
        l1 = torch.stack([(g @ n).sum() for g, n in zip(gates, norms, strict=True)]).sum()
        by_gate = written(gates, decoders, dictionary.b_dec.detach())
        return {
            "sparsity": moment.coefficient * l1,
            "by_gate": (row_weights(self.config, y) * (by_gate - y).square().sum(-1)).sum(),
        }
