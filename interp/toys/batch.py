"""A batch of a toy task: what the model reads, what it should answer, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from interp.errors import ToyError

__all__ = ["Batch"]


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Inputs, targets, and the positions that are scored.

    Attributes:
        inputs: token ids ``[batch, pos]`` or vectors ``[batch, pos, d_in]`` for transformers, whatever
            the module's forward takes for others.
        targets: class ids or real values. Without ``where`` they belong to the last position (or to
            the only output): ``[batch]`` or ``[batch, d_out]``. With it, ``[batch, pos]`` or ``[batch, pos,
            d_out]``.
        where: the positions that are scored, ``[batch, pos]`` of bool; None: the last one.
        facts: what clamps and measures need, by name, a row for each row of the batch.
    """

    inputs: Tensor
    targets: Tensor
    where: Tensor | None = None
    facts: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = {"inputs": self.inputs, "targets": self.targets, **self.facts}
        rows |= {} if self.where is None else {"where": self.where}
        wrong = {name: x.shape[0] for name, x in rows.items() if x.shape[0] != len(self)}
        if wrong:
            raise ToyError(
                f"a batch of {len(self)} rows was given {wrong}: inputs, targets and facts need a row "
                "for each example."
            )
        if self.where is not None and self.where.shape != self.targets.shape[:2]:
            raise ToyError(
                f"where is {list(self.where.shape)} and the targets {list(self.targets.shape)}; expected "
                "a target at every position, of which where picks some."
            )

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def __repr__(self) -> str:
        facts = "".join(f", {name} {list(x.shape)}" for name, x in self.facts.items())
        return f"Batch(inputs {list(self.inputs.shape)}, targets {list(self.targets.shape)}{facts})"

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            where=None if self.where is None else self.where.to(device),
            facts={name: x.to(device) for name, x in self.facts.items()},
        )

    def scored(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs at the scored positions, and their targets.

        Args:
            outputs: ``[batch, pos, d_out]`` of a transformer, or ``[batch, d_out]``.

        Returns:
            ``[n, d_out]`` and ``[n]`` or ``[n, d_out]``.

        Raises:
            ToyError: ``where`` picks positions, and the outputs have none.
        """
        if self.where is None:
            return (outputs[:, -1] if outputs.dim() == 3 else outputs), self.targets
        if outputs.shape[:2] != self.where.shape:
            raise ToyError(
                f"where picks positions of {list(self.where.shape)}, and the model's outputs are "
                f"{list(outputs.shape)}: a task with where= needs an output at each position."
            )
        return outputs[self.where], self.targets[self.where]
