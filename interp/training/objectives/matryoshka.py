"""Matryoshka: nested prefixes of the features must each reconstruct (Bussmann et al. 2025).

The first features learn what is most common, and are not split up when the dictionary grows. The loss
is the mean of the prefixes' losses, all with the same BatchTopK selection.
"""

from __future__ import annotations

from interp.training.objectives.batchtopk import BatchTopKObjective

__all__ = ["MatryoshkaObjective"]


class MatryoshkaObjective(BatchTopKObjective):
    """BatchTopK with several prefixes."""

    def boundaries(self) -> tuple[int, ...]:
        assert self.config.groups is not None
        return self.config.groups
