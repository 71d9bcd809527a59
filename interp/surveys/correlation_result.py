"""Correlations of two sites' units: the best partners, beside the best that chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Correlation"]

_MOST = 40  # rows or columns of a map


@dataclass(frozen=True, eq=False, repr=False)
class Correlation(Stored):
    """Pearson's r between units of two sites.

    Attributes:
        a, b: the sites.
        a_names, b_names: their units.
        values: r, -1 to 1: 0 = no linear relation, negative = one is low where the other is high. NaN
            where a unit is constant.
        null: for each unit of ``a`` the largest |r| with any unit of ``b`` when tokens are paired with
            tokens of other documents. A partner below it is no finding. NaN where no such pairs came.
        n_tokens, n_null: tokens, and pairs of the null.
        same: whether both are read from one site in one way, so that equal names are one unit.
        provenance: model, corpus, versions and the call.
    """

    a: str
    b: str
    a_names: tuple[str, ...]
    b_names: tuple[str, ...]
    values: Float[Tensor, "a b"]
    null: Float[Tensor, " a"]
    n_tokens: int
    n_null: int
    same: bool
    provenance: Provenance

    def __repr__(self) -> str:
        best = float(self._sizes().max().clamp(min=0.0))
        return (
            f"Correlation({self.a} × {self.b}: {len(self.a_names)} × {len(self.b_names)} units; largest "
            f"|r| {best:.3f}, by chance {self.null_max:.3f}; {self.n_tokens:,} tokens)"
        )

    @property
    def null_max(self) -> float:
        """The largest |r| of all pairs of units under the null: what the best of so many gives by chance."""
        known = self.null[~self.null.isnan()]
        return float(known.max()) if len(known) else float("nan")

    def to_frame(self) -> DataFrame:
        """The best partner of each unit of ``a``: columns ``a``, ``b``, ``r``, ``null`` (largest |r| by chance).

        No unit is its own partner.
        """
        import pandas as pd

        sizes = self._sizes()
        known = (sizes.amax(1) >= 0).nonzero().flatten().tolist()
        best = sizes[known].argmax(1).tolist() if known else []
        return pd.DataFrame({
            "a": [self.a_names[i] for i in known],
            "b": [self.b_names[j] for j in best],
            "r": [float(self.values[i, j]) for i, j in zip(known, best, strict=True)],
            "null": [float(self.null[i]) for i in known],
        })  # fmt: skip

    def top(self, n: int = 10, *, unit: str | None = None) -> DataFrame:
        """The ``n`` pairs with the largest |r|, of all or of one unit: ``a``, ``b``, ``r``, ``null``.

        Where both sites are one, each pair comes once, and a unit's pair with itself is left out.

        Raises:
            ResultError: no such unit.
        """
        import pandas as pd

        if unit is not None and unit not in (*self.a_names, *self.b_names):
            raise ResultError(
                f"no unit is called {unit!r}; nearest: {nearest(unit, (*self.a_names, *self.b_names))}."
            )
        rows = [
            (self.a_names[i], self.b_names[j], float(self.values[i, j]), float(self.null[i]))
            for i, j in self._strongest(n, unit)
        ]
        return pd.DataFrame(rows, columns=["a", "b", "r", "null"])

    def _strongest(self, n: int, unit: str | None = None) -> list[tuple[int, int]]:
        sizes = self._sizes()
        if self.same:  # a pair whose mirror image comes earlier
            i, j = (torch.arange(n) for n in self.values.shape)
            row, column = _places(self.b_names, self.a_names), _places(self.a_names, self.b_names)
            row, column, i = row[None], column[:, None], i[:, None]
            earlier = (row < i) | ((row == i) & (column < j))
            sizes = sizes.masked_fill((row >= 0) & (column >= 0) & earlier, -1.0)
        if unit is not None:
            mine = torch.tensor([name == unit for name in self.a_names])[:, None]
            theirs = torch.tensor([name == unit for name in self.b_names])
            sizes = sizes.masked_fill(~(mine | theirs), -1.0)
        order = sizes.flatten().sort(descending=True, stable=True)
        chosen = order.indices[:n][order.values[:n] >= 0].tolist()
        return [divmod(flat, len(self.b_names)) for flat in chosen]

    def _sizes(self) -> Float[Tensor, "a b"]:
        """|r|; -1 where it is unknown, and for a unit with itself."""
        sizes = self.values.abs().nan_to_num(-1.0)
        if not self.same:
            return sizes
        own = _places(self.a_names, self.b_names)[:, None] == torch.arange(len(self.b_names))
        return sizes.masked_fill(own, -1.0)

    def plot(self, *, title: str | None = None) -> Figure:
        """A map of r, red positive and blue negative; of many units those in the strongest pairs."""
        from interp.figures import heatmap

        rows, columns = list(range(len(self.a_names))), list(range(len(self.b_names)))
        cut = ""
        if max(len(rows), len(columns)) > _MOST:
            pairs = self._strongest(_MOST)
            rows = sorted({i for i, _ in pairs}) or rows[:_MOST]
            columns = sorted({j for _, j in pairs}) or columns[:_MOST]
            cut = f": units of the {len(pairs)} strongest pairs"
        return heatmap(
            self.values[rows][:, columns],
            rows=[_short(self.a_names[i]) for i in rows],
            columns=[_short(self.b_names[j]) for j in columns],
            title=title or f"{self.a} against {self.b}{cut} (largest |r| by chance {self.null_max:.2f})",
            unit="Pearson's r over tokens", row_name=self.a, column_name=self.b,
            limit=1.0, annotate=False, missing="a constant unit",
        )  # fmt: skip

    def plot_best(self, *, title: str | None = None) -> Figure:
        """How strong each unit's best partner is, beside its best by chance: two histograms of |r|."""
        from interp.surveys.figure import distributions

        frame = self.to_frame()
        edges = np.linspace(0, 1, 41)
        shown = {"best partner": frame["r"].abs(), "best by chance": frame["null"].dropna()}
        return distributions(
            dict.fromkeys(shown, edges),
            {name: np.histogram(values, bins=edges)[0] for name, values in shown.items()},
            title=title or f"best partner in {self.b} of each unit of {self.a} ({self.n_tokens:,} tokens)",
            x_name="|r| over tokens", y_name=f"units of {self.a}",
        )  # fmt: skip


def _places(names: Sequence[str], among: Sequence[str]) -> Int[Tensor, " name"]:
    """Where each name stands among others; -1: nowhere."""
    where = {name: i for i, name in enumerate(among)}
    return torch.tensor([where.get(name, -1) for name in names])


def _short(name: str) -> str:
    return name.rpartition(".")[2] if "#" in name or ".N" in name or ".F" in name else name
