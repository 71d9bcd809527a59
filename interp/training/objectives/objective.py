"""What every objective offers to the two kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.part import Part
from interp.training.config import TrainConfig
from interp.training.parallel import Together

if TYPE_CHECKING:
    from interp.training.results import Picked

__all__ = ["Moment", "Objective"]


@dataclass(frozen=True)
class Moment:
    """Where training stands at one step.

    Attributes:
        rows: of the whole batch, on all ranks.
        coefficient: of the penalty.
        together: the other ranks.
    """

    rows: int
    coefficient: float
    together: Together


class Objective:
    """Training's side of an activation.

    The dense kernel calls :meth:`activate` and :meth:`penalty` under autograd; the sparse one calls
    :meth:`select`. Objectives with several :meth:`boundaries` are scored on each prefix of the features.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def boundaries(self) -> tuple[int, ...]:
        """Ends of the prefixes of features that must reconstruct, the last being all."""
        return (self.config.d_sae,)

    def activate(
        self, part: Part, pre: Float[Tensor, "row d_sae"], moment: Moment
    ) -> Float[Tensor, "row d_sae"]:
        """Feature activations in training; gradients flow as they should in training."""
        return part.activation(pre, part.b_enc)

    def penalty(
        self,
        dictionary: Dictionary,
        pres: Sequence[Float[Tensor, "row d_sae"]],
        acts: Sequence[Float[Tensor, "row d_sae"]],
        y: Float[Tensor, "row width"],
        moment: Moment,
    ) -> dict[str, Tensor]:
        """Terms added to the reconstruction's, summed over these rows."""
        return {}

    def select(self, part: Part, x: Float[Tensor, "row d_in"], moment: Moment) -> Codes:
        """The active features of centred input, for the sparse kernel."""
        raise NotImplementedError

    def after(self, dictionary: Dictionary, picked: Picked, seen: int) -> None:
        """What changes beside the gradient step; ``seen`` steps were before this one."""
