"""Where a head looks by distance alone, under rotary positions.

With learned positions a previous-token head shows in :func:`interp.weight_lenses.qk_positions`.
Rotary positions have no term of their own: the distance turns the product of content with
content. What is left when content is averaged out is the mean score over all pairs of tokens, at
each distance:

    mean(offset) = q̄ M_offset k̄,      q̄, k̄: means of queries and keys over the vocabulary

A head that looks at the token before it has its largest mean at 1. The spread over pairs of tokens
says how far content can override it; both are exact, from means and covariances of d_head numbers.

Sources: Elhage et al. 2021 (QK circuit); Su et al. 2021 (rotary positions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError, ModelError
from interp.models.model import Model
from interp.results import Provenance, Stored
from interp.weight_lenses.circuits import qk_circuit
from interp.weight_lenses.rotary import is_rotary, relative_rotation

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["OffsetScores", "qk_offsets"]


@dataclass(frozen=True, eq=False, repr=False)
class OffsetScores(Stored):
    """A head's attention score by distance, over all pairs of tokens.

    Attributes:
        head: as ``"L0.H4"``.
        offsets: how far before the query the key stands.
        mean: mean score at each, before softmax.
        spread: standard deviation over pairs of tokens.
        start: what stands for a token in the residual stream.
        provenance: model, versions and the call.
    """

    head: str
    offsets: tuple[int, ...]
    mean: Float[Tensor, " offset"]
    spread: Float[Tensor, " offset"]
    start: str
    provenance: Provenance

    def __repr__(self) -> str:
        best = self.offsets[int(self.mean.argmax())]
        return f"OffsetScores({self.head}: largest mean at {best}, lead at 1 {self.lead():.2f})"

    def lead(self, offset: int = 1) -> float:
        """Mean score at ``offset`` less the largest at any other: above 0, the head looks there
        when content says nothing. 1 is what a previous-token head has.

        Raises:
            MetricError: that offset was not computed, or no other was.
        """
        if offset not in self.offsets or len(self.offsets) < 2:
            raise MetricError(
                f"lead({offset}) among the offsets {self.offsets}: expected that offset and others; "
                "give them to qk_offsets."
            )
        at = self.offsets.index(offset)
        others = torch.cat([self.mean[:at], self.mean[at + 1 :]])
        return float(self.mean[at] - others.max())

    def to_frame(self) -> DataFrame:
        """One row for each offset: ``offset``, ``mean``, ``spread``."""
        import pandas as pd

        return pd.DataFrame({"offset": self.offsets, "mean": self.mean.tolist(),
                             "spread": self.spread.tolist()})  # fmt: skip

    def plot(self, *, title: str | None = None) -> Figure:
        """Mean score over offsets, with a band of one standard deviation over pairs of tokens."""
        from interp.figures import lines

        name = "mean ± spread over pairs of tokens"
        band = ((self.mean - self.spread).tolist(), (self.mean + self.spread).tolist())
        return lines([str(i) for i in self.offsets], {name: self.mean.tolist()},
                     bands={name: band}, x_name="key this many tokens before the query",
                     y_name="attention score",
                     title=title or f"{self.head} by distance, from {self.start}")  # fmt: skip


@torch.no_grad()
def qk_offsets(
    model: Model,
    layer: int,
    head: int,
    offsets: Sequence[int] = tuple(range(16)),
    *,
    through_mlp0: bool = False,
) -> OffsetScores:
    """Mean attention score of a head over all pairs of tokens, at each distance.

    Args:
        offsets: how far before the query the key stands.

    Raises:
        ModelError: no such head, or no rotary positions.
        MetricError: no offsets.
    """
    if not offsets:
        raise MetricError("no offsets were given; expected some, such as range(16).")
    circuit = qk_circuit(model, layer, head, through_mlp0=through_mlp0)
    if not is_rotary(model.anatomy, layer):
        raise ModelError(
            f"layer {layer} of this {model.anatomy.name} model has no rotary positions, so no "
            "offset changes its scores; learned positions: qk_positions."
        )
    # the circuit at 0 holds q M_0 and k; from there M_0⁻¹ M_offset
    unturned = torch.linalg.inv(relative_rotation(model.anatomy, layer, 0).double())
    queries = circuit.matrix.left.double() @ unturned
    q, k = _moments(queries), _moments(circuit.matrix.right.T.double())
    mean, spread = [], []
    for offset in offsets:
        turn = relative_rotation(model.anatomy, layer, offset).double()
        value = q[0] @ turn @ k[0]
        square = ((turn.T @ q[1] @ turn) * k[1]).sum()
        mean.append(value)
        spread.append((square - value.square()).clamp(min=0).sqrt())
    return OffsetScores(
        head=circuit.head,
        offsets=tuple(offsets),
        mean=torch.stack(mean).float().cpu(),
        spread=torch.stack(spread).float().cpu(),
        start=circuit.start,
        provenance=Provenance.of(
            model, verb="qk_offsets", layer=layer, head=head, offsets=list(offsets),
            through_mlp0=through_mlp0,
        ),
    )  # fmt: skip


def _moments(
    rows: Float[Tensor, "row d_head"],
) -> tuple[Float[Tensor, " d_head"], Float[Tensor, "d_head d_head"]]:
    """Mean, and mean outer product."""
    return rows.mean(0), rows.T @ rows / len(rows)
