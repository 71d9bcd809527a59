"""Connections between the features of two layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import DictionaryError, ResultError
from interp.results import Provenance, Stored
from interp.weight_lenses.factored import Factored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Connections"]


@dataclass(frozen=True, eq=False, repr=False)
class Connections(Stored):
    """From features of one transcoder to those of a later one. Made by :func:`connections`.

    Attributes:
        source, target: where the features are, ``"L0.mlp"`` and ``"L2.mlp"``.
        head: the head they pass; None: straight along the residual stream.
        written: what each source feature writes (its row of the decoder).
        read: what each target feature reads of the stream, but for its norm's division.
        together: mean of ``f_source / s`` over the tokens at which the target is active; None without a corpus.
        fired: at how many tokens each target was active.
        provenance: model, corpus, versions and the call.
    """

    source: str
    target: str
    head: str | None
    written: Float[Tensor, "source d_model"]
    read: Float[Tensor, "d_model target"]
    together: Float[Tensor, "source target"] | None
    fired: Int[Tensor, " target"] | None
    provenance: Provenance

    def __repr__(self) -> str:
        way = "" if self.head is None else f" through {self.head}"
        seen = (
            "weights alone"
            if self.fired is None
            else f"{int((self.fired > 0).sum())} targets seen active"
        )
        return (
            f"Connections({self.source} → {self.target}{way}: {len(self.written):,} × {self.read.shape[1]:,} features; "
            f"{seen})"
        )

    @property
    def matrix(self) -> Factored:
        """Input-invariant connections, [source, target], kept as their two factors."""
        return Factored(self.written, self.read)

    @property
    def invariant(self) -> Float[Tensor, "source target"]:
        """Input-invariant connections, written out.

        Raises:
            BudgetError: there are more than 2²⁴ of them; ask :attr:`matrix` for rows, columns or the largest.
        """
        return self.matrix.dense()

    @property
    def dependent(self) -> Float[Tensor, "source target"]:
        """Mean input-dependent connections over the tokens at which the target is active.

        Raises:
            ResultError: no corpus was read.
        """
        return self.invariant * self._together()

    def into(self, target: int, *, top: int = 10) -> DataFrame:
        """The source features that feed one target feature most.

        Columns: ``source``, ``invariant``; with a corpus also ``together`` (mean of f/s) and ``dependent``, by which
        the rows are then ordered.

        Raises:
            DictionaryError: no such feature.
        """
        if not 0 <= target < self.read.shape[1]:
            raise DictionaryError(
                f"no feature {target!r} in {self.target}; expected 0 to {self.read.shape[1] - 1}."
            )
        weights = self.matrix.columns([target])[:, 0]
        seen = None if self.together is None else self.together[:, target]
        return _frame("source", self.source, weights, seen, top)

    def out_of(self, source: int, *, top: int = 10) -> DataFrame:
        """The target features that one source feature feeds most; columns as :meth:`into`.

        Raises:
            DictionaryError: no such feature.
        """
        if not 0 <= source < len(self.written):
            raise DictionaryError(
                f"no feature {source!r} in {self.source}; expected 0 to {len(self.written) - 1}."
            )
        weights = self.matrix.rows([source])[0]
        seen = None if self.together is None else self.together[source]
        return _frame("target", self.target, weights, seen, top)

    def agreement(self, *, least: int = 30, seed: int = 0) -> DataFrame:
        """How well weights alone order the sources of each target that was active at ``least`` tokens.

        Columns: ``target``; ``sources`` that were active with it; ``spearman``, over these, of input-invariant
        with mean input-dependent connections (1: the same order); ``shuffled``, with the input-invariant
        connections of another target (by ``seed``) in their place.

        Raises:
            ResultError: no corpus was read.
        """
        import pandas as pd

        weights, together = self.invariant, self._together()
        assert self.fired is not None
        targets = (self.fired >= least).nonzero()[:, 0]
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
        other = torch.empty_like(targets)
        other[order] = targets[order.roll(1)]  # one cycle: nobody is its own control
        rows = []
        for target, control in zip(targets.tolist(), other.tolist(), strict=True):
            there = together[:, target] > 0
            truth = weights[there, target] * together[there, target]
            rows.append({
                "target": f"{self.target}.F{target}", "sources": int(there.sum()),
                "spearman": _spearman(weights[there, target], truth),
                "shuffled": _spearman(weights[there, control], truth),
            })  # fmt: skip
        return pd.DataFrame(rows, columns=["target", "sources", "spearman", "shuffled"])

    def plot(self, target: int, *, title: str | None = None) -> Figure:
        """For one target feature, two factors of each source that is ever active with it: what it can do, and how
        much it is there.

        Raises:
            DictionaryError: no such feature.
            ResultError: no corpus was read.
        """
        from interp.figures.style import PALETTE, canvas, wrapped

        together = self._together()
        frame = self.into(target, top=len(self.written)).query("together > 0")
        with canvas(4.6, 3.6) as (figure, axes):
            colours = [PALETTE[0] if value >= 0 else PALETTE[1] for value in frame["dependent"]]
            axes.scatter(frame["invariant"], frame["together"], s=12, color=colours, linewidths=0, alpha=0.7)  # fmt: skip
            for _, row in frame.head(5).iterrows():
                axes.annotate(
                    row["source"].rpartition(".")[2], (row["invariant"], row["together"]),
                    xytext=(4, 2), textcoords="offset points", fontsize=7,
                )  # fmt: skip
            axes.axvline(0, color="#222222", linewidth=0.8)
            axes.set_ylim(bottom=-0.02 * float(together[:, target].max()))
            axes.set_xlabel("input-invariant: decoder · encoder behind the norm")
            axes.set_ylabel("mean of f / s where the target is active")
            axes.set_title(
                wrapped(
                    title or f"features of {self.source} that feed {self.target}.F{target}", 4.2
                )
            )
        return figure

    def _together(self) -> Tensor:
        if self.together is None:
            raise ResultError(
                "these connections are of weights alone: give connections(..., corpus=...) to see which features are "
                "active together."
            )
        return self.together


def _spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Correlation of ranks; NaN of fewer than two. (No ties: products of real numbers.)"""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1]) if len(a) > 1 else float("nan")


def _frame(name: str, site: str, weights: Tensor, seen: Tensor | None, top: int) -> DataFrame:
    import pandas as pd

    by = weights if seen is None else weights * seen
    order = by.abs().argsort(descending=True, stable=True)[:top]
    columns = {name: [f"{site}.F{i}" for i in order.tolist()], "invariant": weights[order].tolist()}
    if seen is not None:
        columns |= {"together": seen[order].tolist(), "dependent": by[order].tolist()}
    return pd.DataFrame(columns)
