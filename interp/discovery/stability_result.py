"""How far a circuit depends on the prompts drawn, the method, and the ablation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.geometry.correlation import spearman
from interp.graph import Graph
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["StabilityResult", "chance_jaccard", "jaccard"]


@dataclass(frozen=True, eq=False, repr=False)
class StabilityResult(Stored):
    """Scores of every edge by several methods and ablations, on several draws of prompts.

    A circuit here is the ``n`` edges with the largest \\|score\\|; edges whose score is 0 never belong.

    Attributes:
        seeds: of the draws.
        methods, ablations: of the scores.
        scores: in the order of the graph's edges.
        twin: the same of the untrained twin under the first ablation; None where it was left out.
        n: how many edges make a circuit.
        shape: what makes the graph (:attr:`Graph.shape`).
        drawn: how the prompts of a draw were made.
        n_prompts: how many each draw scores.
        metric, unit: what was measured.
        notes: what the reader must know.
        provenance: model, versions and the call.
    """

    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    ablations: tuple[str, ...]
    scores: Float[Tensor, "seed method ablation edge"]
    twin: Float[Tensor, "seed method edge"] | None
    n: int
    shape: dict[str, Any]
    drawn: str
    n_prompts: int
    metric: str
    unit: str
    notes: tuple[str, ...]
    provenance: Provenance

    def __repr__(self) -> str:
        own = self.jaccard()
        twin = (
            ""
            if self.twin is None
            else f", untrained twin {float(self.jaccard(twin=True).mean()):.2f}"
        )
        return (
            f"StabilityResult({self.n} of {self.scores.shape[-1]:,} edges over {len(self.seeds)} draws: "
            f"Jaccard {float(own.mean()):.2f} ({self.methods[0]}, {self.ablations[0]}){twin}, chance "
            f"{self.chance:.2f}; {len(self.stable())} edges in every draw)"
        )

    @property
    def graph(self) -> Graph:
        """The graph whose edges these are."""
        return Graph.shaped(**self.shape)

    @property
    def chance(self) -> float:
        """The mean Jaccard index of two random sets of ``n`` edges."""
        return chance_jaccard(self.n, self.scores.shape[-1])

    # -- over draws of prompts -------------------------------------------------------------

    def members(
        self, method: str | None = None, ablation: str | None = None, *, twin: bool = False
    ) -> Bool[Tensor, "seed edge"]:
        """Which edges belong to each draw's circuit.

        Args:
            method, ablation: None: the first.
            twin: of the untrained twin, which was scored under the first ablation.
        """
        return _top(self._of(method, ablation, twin=twin), self.n)

    def jaccard(
        self, method: str | None = None, ablation: str | None = None, *, twin: bool = False
    ) -> Float[Tensor, " pair"]:
        """Jaccard index of the circuits of each two draws: 0 nothing shared, 1 the same edges."""
        members = self.members(method, ablation, twin=twin)
        return torch.stack([jaccard(a, b) for a, b in combinations(members, 2)])

    def frequency(
        self, method: str | None = None, ablation: str | None = None
    ) -> Float[Tensor, " edge"]:
        """The share of draws whose circuit has each edge, in the order of the graph's edges."""
        return self.members(method, ablation).double().mean(0)

    def stable(
        self, share: float = 1.0, method: str | None = None, ablation: str | None = None
    ) -> tuple[str, ...]:
        """The edges in at least a share of the draws' circuits, in the order of the graph."""
        found = (self.frequency(method, ablation) >= share - 1e-9).nonzero().flatten().tolist()
        edges = self.graph.edges
        return tuple(edges[i] for i in found)

    # -- agreement -------------------------------------------------------------------------

    def agreement(
        self, over: str = "methods", *, fixed: str | None = None
    ) -> tuple[Float[Tensor, "one other"], Float[Tensor, "one other"]]:
        """How far two methods (or ablations) agree on the same draw, mean over draws.

        Args:
            over: ``"methods"`` or ``"ablations"``.
            fixed: the ablation under which methods are compared (or the method by which ablations
                are); None: the first.

        Returns:
            Spearman's rank correlation of \\|score\\| over all edges, and the Jaccard index of the
            circuits.
        """
        if over not in ("methods", "ablations"):
            raise ResultError(f"over={over!r}; expected 'methods' or 'ablations'.")
        if over == "methods":
            scores = self.scores[:, :, _index(fixed, self.ablations, "ablation")]
        else:
            scores = self.scores[:, _index(fixed, self.methods, "method")]
        members = _top(scores, self.n)
        kinds = range(scores.shape[1])
        rank = [
            [spearman(scores[:, i].abs(), scores[:, j].abs()).mean() for j in kinds] for i in kinds
        ]
        same = [[jaccard(members[:, i], members[:, j]).mean() for j in kinds] for i in kinds]
        return torch.tensor(rank), torch.tensor(same)

    def _of(
        self, method: str | None, ablation: str | None, *, twin: bool
    ) -> Float[Tensor, "seed edge"]:
        number = _index(method, self.methods, "method")
        place = _index(ablation, self.ablations, "ablation")
        if not twin:
            return self.scores[:, number, place]
        if self.twin is None or place:
            raise ResultError(
                f"the twin was not scored under {self.ablations[place]!r} ablation here; it is under "
                "the first ablation, unless twin=False."
            )
        return self.twin[:, number]

    # -- looking ---------------------------------------------------------------------------

    def to_frame(self) -> DataFrame:
        """One row for each comparison.

        ``over``: ``"prompts"`` (pairs of draws), ``"methods"`` or ``"ablations"`` (two of them on
        the same draw); ``of``, ``with``: what was compared; ``model``: the model's name or
        ``"untrained twin"``; ``jaccard``: mean, with ``low`` and ``high``: the least and largest of the
        pairs of draws; ``rank_correlation``: Spearman's of \\|score\\|; ``chance``: the Jaccard
        index of two random circuits of that size.
        """
        import pandas as pd

        rows = [
            self._row(method, ablation, twin=twin)
            for twin in (False, True)[: 1 + (self.twin is not None)]
            for method in self.methods
            for ablation in (self.ablations if not twin else self.ablations[:1])
        ]
        for over, kinds in (("methods", self.methods), ("ablations", self.ablations)):
            for fixed in self.ablations if over == "methods" else self.methods:
                rank, same = self.agreement(over, fixed=fixed)
                rows += [
                    {"over": over, "of": f"{kinds[i]} ({fixed})", "with": f"{kinds[j]} ({fixed})",
                     "model": self.provenance.model, "jaccard": float(same[i, j]), "low": math.nan,
                     "high": math.nan, "rank_correlation": float(rank[i, j]), "chance": self.chance}
                    for i, j in combinations(range(len(kinds)), 2)
                ]  # fmt: skip
        return pd.DataFrame(rows)

    def _row(self, method: str, ablation: str, *, twin: bool) -> dict[str, Any]:
        pairs = self.jaccard(method, ablation, twin=twin)
        scores = self._of(method, ablation, twin=twin).abs()
        ranks = torch.stack([spearman(a, b) for a, b in combinations(scores, 2)])
        name = f"{method} ({ablation})"
        return {
            "over": "prompts", "of": name, "with": name,
            "model": "untrained twin" if twin else self.provenance.model,
            "jaccard": float(pairs.mean()), "low": float(pairs.min()), "high": float(pairs.max()),
            "rank_correlation": float(ranks.mean()), "chance": self.chance,
        }  # fmt: skip

    def edges_frame(self, method: str | None = None, ablation: str | None = None) -> DataFrame:
        """One row for each edge of any draw's circuit, the most frequent first.

        ``edge``, ``frequency`` (share of draws), ``score`` (mean over draws), ``std`` (over draws).
        """
        import pandas as pd

        share, scores = self.frequency(method, ablation), self._of(method, ablation, twin=False)
        frame = pd.DataFrame({
            "edge": list(self.graph.edges), "frequency": share.tolist(),
            "score": scores.mean(0).tolist(), "std": scores.std(0).tolist(),
        })[share.gt(0).tolist()]  # fmt: skip
        size = frame["score"].abs()
        order = frame.assign(size=size).sort_values(
            ["frequency", "size"], ascending=False, kind="stable"
        )
        return order.drop(columns="size").reset_index(drop=True)

    def plot(self, *, title: str | None = None) -> Figure:
        """Three panels: draws of prompts beside the twin and chance, methods, ablations."""
        from interp.discovery.stability_figure import draw

        return draw(self, title)


def _top(scores: Float[Tensor, "*draws edge"], n: int) -> Bool[Tensor, "*draws edge"]:
    """The ``n`` largest in size, ties in the order of the edges; never a score of 0."""
    size = scores.double().abs().nan_to_num(0.0)
    chosen = size.argsort(dim=-1, descending=True, stable=True)[..., :n]
    return torch.zeros_like(size, dtype=torch.bool).scatter(-1, chosen, True) & (size > 0)


def jaccard(
    one: Bool[Tensor, "*draws edge"], other: Bool[Tensor, "*draws edge"]
) -> Float[Tensor, "*draws"]:
    """Edges in both over edges in either; 1 if both are empty."""
    either = (one | other).sum(-1)
    return torch.where(either > 0, (one & other).sum(-1) / either.clamp(min=1), 1.0).double()


def chance_jaccard(n: int, total: int) -> float:
    """The mean Jaccard index of two random sets of ``n`` out of ``total``.

    Their overlap is hypergeometric: Σ_x x / (2n - x) · C(n, x) C(total - n, n - x) / C(total, n).

    >>> round(chance_jaccard(1, 4), 4), chance_jaccard(4, 4)
    (0.25, 1.0)
    """
    if not n:
        return 1.0

    def log_choose(of: int, some: int) -> float:
        return math.lgamma(of + 1) - math.lgamma(some + 1) - math.lgamma(of - some + 1)

    whole = log_choose(total, n)
    overlaps = range(max(0, 2 * n - total), n + 1)
    return sum(
        x / (2 * n - x) * math.exp(log_choose(n, x) + log_choose(total - n, n - x) - whole)
        for x in overlaps
    )


def _index(name: str | None, names: Sequence[str], what: str) -> int:
    if name is None:
        return 0
    if name not in names:
        raise ResultError(f"no {what} {name!r} in this result; nearest: {nearest(name, names)}.")
    return names.index(name)
