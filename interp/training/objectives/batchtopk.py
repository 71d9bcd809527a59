"""BatchTopK: the ``k · batch`` largest activations of a batch (Bussmann et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.activations import BatchTopK
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.select import select_batchtopk
from interp.dictionaries.part import Part
from interp.training.objectives.objective import Moment, Objective

__all__ = ["BatchTopKObjective"]


class BatchTopKObjective(Objective):
    """What exceeds the batch's own threshold; a moving average of it is what inference uses."""

    def activate(
        self, part: Part, pre: Float[Tensor, "row d_sae"], moment: Moment
    ) -> Float[Tensor, "row d_sae"]:
        acts = pre.relu()
        threshold = moment.together.kth(acts.detach().flatten(), self._total(moment))
        return acts * (acts >= threshold)

    def select(self, part: Part, x: Float[Tensor, "row d_in"], moment: Moment) -> Codes:
        kth = None if moment.together.alone else moment.together.kth
        return select_batchtopk(
            x, part.enc, part.b_enc, self._total(moment), screen=self.config.screen, kth=kth
        )

    @torch.no_grad()
    def after(self, dictionary: Dictionary, picked: Any, seen: int) -> None:
        """The threshold: a plain mean over the first steps, then a moving one."""
        weight = max(1 - self.config.threshold_decay, 1 / (seen + 1))
        for part, least in zip(dictionary.parts, picked.least, strict=True):
            assert isinstance(part.activation, BatchTopK)
            if bool(least.isfinite()):  # something was active
                part.activation.threshold.lerp_(least.to(part.activation.threshold), weight)

    def _total(self, moment: Moment) -> int:
        assert self.config.k is not None
        return self.config.k * moment.rows
