"""TopK needs no penalty: the error alone is the loss (Gao et al. 2024, §2.3)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.select import select_topk
from interp.dictionaries.part import Part
from interp.training.objectives.objective import Moment, Objective

__all__ = ["TopKObjective"]


class TopKObjective(Objective):
    """The k largest of each row."""

    def select(self, part: Part, x: Float[Tensor, "row d_in"], moment: Moment) -> Codes:
        assert self.config.k is not None
        return select_topk(x, part.enc, part.b_enc, self.config.k, screen=self.config.screen)
