"""Composition scores of all pairs of heads, beside what chance gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from interp.errors import ResultError
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["CompositionResult"]


@dataclass(frozen=True, eq=False, repr=False)
class CompositionResult(Stored):
    """How much later heads read of what earlier heads write, by weights.

    Attributes:
        values: ‖product‖ / product of norms, 0 to 1: 0 = head 2 reads nothing of what head 1
            writes. NaN unless layer 2 is later than layer 1.
        kind: ``"q"``, ``"k"`` or ``"v"``: what the later head reads it as.
        baseline: root mean square score of a head whose output directions are turned at random.
        null: for each random turn of all outputs, the largest score of all pairs.
        offset: under rotary positions, the distance at which q meets k; else None.
        provenance: model, versions and the call.
    """

    values: Float[Tensor, "writer_layer writer reader_layer reader"]
    kind: str
    baseline: float
    null: Float[Tensor, " control"]
    offset: int | None
    provenance: Provenance

    def __repr__(self) -> str:
        best = self.top(1)
        strongest = (
            ""
            if best.empty
            else (f"; strongest {best.writer[0]} → {best.reader[0]} {best.score[0]:.3f}")
        )
        return f"CompositionResult({self.kind}{strongest}, random {self.baseline:.3f})"

    @property
    def excess(self) -> Float[Tensor, "writer_layer writer reader_layer reader"]:
        """The scores less the baseline: 0 = as a random head, below = avoids it."""
        return self.values - self.baseline

    def to_frame(self) -> DataFrame:
        """One row for each pair: ``writer``, ``reader``, ``score``, ``excess`` and ``ratio`` to
        the baseline, ``null_max`` (the largest score that any pair had under a random turn)."""
        import pandas as pd

        where = (~self.values.isnan()).nonzero().tolist()
        scores = self.values[~self.values.isnan()].tolist()
        return pd.DataFrame({
            "writer": [f"L{a}.H{b}" for a, b, _, _ in where],
            "reader": [f"L{c}.H{d}" for _, _, c, d in where],
            "score": scores,
            "excess": [score - self.baseline for score in scores],
            "ratio": [score / self.baseline for score in scores],
            "null_max": float(self.null.max()) if len(self.null) else float("nan"),
        })  # fmt: skip

    def top(self, n: int = 10, *, writer: str | None = None, reader: str | None = None
            ) -> DataFrame:  # fmt: skip
        """The ``n`` pairs with the largest scores, of all or of one writer or reader."""
        frame = self.to_frame()
        for column, name in (("writer", writer), ("reader", reader)):
            frame = frame if name is None else frame[frame[column] == name]
        return frame.nlargest(n, "score").reset_index(drop=True)

    def plot(self, *, title: str | None = None) -> Figure:
        """A heat map of all pairs: writers upwards, readers to the right, less the baseline.

        Raises:
            ResultError: the model has one layer, so there are no pairs.
        """
        from interp.figures import heatmap

        layers, heads = self.values.shape[:2]
        if layers < 2:
            raise ResultError("a model of one layer has no pairs of heads to draw; expected two.")
        at = "" if self.offset is None else f", offset {self.offset}"
        first, last = self.excess[:-1], range(layers - 1)
        return heatmap(
            first[:, :, 1:].flatten(2).flatten(0, 1),
            rows=[f"L{i}.H{j}" for i in last for j in range(heads)],
            columns=[f"L{i + 1}.H{j}" for i in last for j in range(heads)],
            title=title or f"{self.kind.upper()}-composition (random: {self.baseline:.3f}{at})",
            unit="score less that of a random head",
            row_name="writing head",
            column_name="reading head",
            annotate=False,
            missing="not a later layer",
        )
