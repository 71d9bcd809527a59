"""Histograms of activations: quantiles, shares of zeros, how often each unit fires."""

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
from interp.surveys.bins import Bins

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Histograms"]


@dataclass(frozen=True, eq=False, repr=False)
class Histograms(Stored):
    """Distributions of activations, one line for each site or unit.

    Attributes:
        names: of the lines: a site, or a unit of one.
        scale: ``linear``; or ``log``: what is binned is log10 |activation|, without zeros.
        of: ``value`` or ``norm``.
        counts: numbers in each bin.
        exponent, low: bin ``i`` begins at ``(low + i) · 2^exponent``.
        least, most: the smallest and largest number that was binned; inf and -inf where there is none.
        zeros, positive: how many numbers are exactly 0, and how many above it.
        numbers: how many numbers each line has, zeros included.
        n_tokens: tokens surveyed.
        provenance: model, corpus, versions and the call.
    """

    names: tuple[str, ...]
    scale: str
    of: str
    counts: Int[Tensor, "line bin"]
    exponent: Int[Tensor, " line"]
    low: Int[Tensor, " line"]
    least: Float[Tensor, " line"]
    most: Float[Tensor, " line"]
    zeros: Int[Tensor, " line"]
    positive: Int[Tensor, " line"]
    numbers: Int[Tensor, " line"]
    n_tokens: int
    provenance: Provenance

    def __repr__(self) -> str:
        some = ", ".join(self.names[:3]) + (", ..." if len(self.names) > 3 else "")
        return (
            f"Histograms({len(self.names)} lines: {some}; {self.n_tokens:,} tokens, {self.scale})"
        )

    @property
    def bins(self) -> Bins:
        """The bins of all lines."""
        return Bins(self.counts, self.exponent, self.low, self.least, self.most)

    @property
    def edges(self) -> Float[Tensor, "line edge"]:
        """Edges of the bins, in the activation's unit; under ``log``, of its log10."""
        return self.bins.edges

    @property
    def resolution(self) -> Float[Tensor, " line"]:
        """The width of a line's bins: what :meth:`quantile` may be off by; under ``log``, in decades."""
        return self.bins.width

    @property
    def density(self) -> Float[Tensor, " line"]:
        """Share of tokens at which a line is above 0, 0 to 1: how often a feature fires. 0 = dead."""
        return self.positive.double() / self.numbers

    def quantile(self, q: float) -> Float[Tensor, " line"]:
        """The number that a share ``q`` of a line's numbers do not exceed.

        Off by less than :attr:`resolution`. Under ``log`` it is of |activation|, and zeros count as
        the smallest.

        Raises:
            ResultError: q is no share.
        """
        if not 0 <= q <= 1:
            raise ResultError(f"q={q}; expected a share from 0 to 1, such as 0.99.")
        rank = (q * self.numbers.double() - 1e-9).ceil().long().clamp(min=1)
        if self.scale == "linear":
            return self.bins.at_rank(rank)
        above = rank - self.zeros
        return torch.where(above > 0, 10 ** self.bins.at_rank(above), 0.0)

    def to_frame(self) -> DataFrame:
        """One row for each line.

        Columns: ``name``, ``numbers``, ``zero`` and ``positive`` (shares), ``min``, ``q01``, ``median``,
        ``q99``, ``max``, ``resolution`` (of the quantiles). Under ``log`` all are of |activation|.
        """
        import pandas as pd

        def ends(x: Tensor) -> list[float]:
            x = 10**x if self.scale == "log" else x
            return x.masked_fill(self.counts.sum(1) == 0, torch.nan).tolist()

        return pd.DataFrame({
            "name": list(self.names), "numbers": self.numbers.tolist(),
            "zero": (self.zeros.double() / self.numbers).tolist(), "positive": self.density.tolist(),
            "min": ends(self.least), "q01": self.quantile(0.01).tolist(),
            "median": self.quantile(0.5).tolist(), "q99": self.quantile(0.99).tolist(),
            "max": ends(self.most), "resolution": self.resolution.tolist(),
        })  # fmt: skip

    def plot(self, names: str | Sequence[str] | None = None, *, title: str | None = None) -> Figure:
        """The distributions of some lines as densities, on a logarithmic height: areas are shares of
        each line's numbers. Lines that are always 0 are named and not drawn.

        Args:
            names: which; None: all.

        Raises:
            ResultError: no such line, more than a figure can show, or all of them always 0.
        """
        from interp.surveys.figure import distributions

        asked = (
            list(self.names)
            if names is None
            else [names]
            if isinstance(names, str)
            else list(names)
        )
        places = [self._place(name) for name in asked]
        edges, heights = {}, {}
        dead = [
            name for name, i in zip(asked, places, strict=True) if self.zeros[i] == self.numbers[i]
        ]
        if len(dead) == len(asked):
            raise ResultError(f"{', '.join(dead[:4])}: always 0, so there is nothing to draw.")
        for name, i in zip(asked, places, strict=True):
            if name in dead:
                continue
            held = self.counts[i].nonzero().flatten().tolist() or [0]
            used = slice(held[0], held[-1] + 1)
            per_unit = int(self.numbers[i]) * float(self.resolution[i])
            heights[name] = self.counts[i, used].numpy() / per_unit
            edges[name] = self.edges[i, used.start : used.stop + 1].numpy()
        zero = float(self.zeros[places].sum() / self.numbers[places].sum())
        what = "‖activation‖" if self.of == "norm" else "activation"
        log = self.scale == "log"
        return distributions(
            edges, heights, tall=True,
            title=(title or f"how activations are distributed ({self.n_tokens:,} tokens)")
            + f"; {zero:.1%} are zero" + ", not shown" * log
            + (f"; always 0: {', '.join(dead[:4])}" + " and more" * (len(dead) > 4) if dead else ""),
            x_name=f"log10 {what if self.of == 'norm' else '|activation|'}" if log else what,
            y_name="share of numbers per " + ("decade" if log else "unit of activation"),
        )  # fmt: skip

    def plot_density(self, *, title: str | None = None) -> Figure:
        """How many lines fire how often: a histogram of log10 :attr:`density` over all lines."""
        from interp.surveys.figure import distributions

        live = self.density[self.density > 0].log10().numpy()
        dead = len(self.names) - len(live)
        heights, edges = np.histogram(live, bins=40, range=(min(-4.0, live.min(initial=0.0)), 0.0))
        said = title or f"how often {len(self.names)} units fire ({self.n_tokens:,} tokens)"
        return distributions(
            {"units": edges}, {"units": heights}, title=f"{said}; {dead} never",
            x_name="log10 share of tokens where the unit is above 0", y_name="units",
        )  # fmt: skip

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise ResultError(f"no line is called {name!r}; nearest: {nearest(name, self.names)}.")
        return self.names.index(name)
