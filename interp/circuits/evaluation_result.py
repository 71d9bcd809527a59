"""What an evaluation found about a circuit, beside circuits of equal size drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.shares import gap, share, share_interval
from interp.errors import ResultError
from interp.intervals import Interval, bootstrap
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["CircuitEvaluation"]

Members = Literal["nodes", "edges"]
Chance = Literal["connected", "edges"]
Names = tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class CircuitEvaluation(Stored):
    """Faithfulness, completeness and minimality of a circuit C of a model M, with chance beside.

    F is the metric's mean over prompts, in ``unit``; what is not kept is ablated.

    Attributes:
        circuit: the circuit's name.
        n_edges, n_nodes, n_graph: its edges, its nodes, and how many edges the model has.
        metric, unit, ablation: what was measured, and what stands where an edge is ablated.
        kept: F(C): the score of each prompt with the circuit's edges alone.
        full, empty: the same with every edge, and with none.
        complement: the same with every edge but the circuit's: near ``empty`` if nothing else can
            do the task.
        sets, kinds: sets K of the circuit's nodes, ``"none"`` (empty), ``"random"``, ``"greedy"`` or
            named as a role; see :mod:`interp.circuits.completeness`.
        without: F(C \\ K), F(M \\ K), each prompt's.
        nodes, node_sets, node_effect: each node of the circuit, the K at which its removal does
            most, and F(C \\ (K ∪ {v})) - F(C \\ K), each prompt's; see
            :mod:`interp.circuits.minimality`.
        edges, edge_sets, edge_effect: the same of each edge.
        node_chance, edge_chance: F(C ∪ {w}) - F(C) of random non-members.
        random_edges, random_connected: F of random circuits of as many edges: drawn one by one,
            and grown so that each edge lies on a way from an embedding to the logits.
        threshold: the least effect of a member that is needed, as a share of :attr:`scale`.
        min_gap: the least gap that may be divided by, in ``unit``.
        notes: what the reader must know.
        provenance: model, prompts, seed, versions and the call.
    """

    circuit: str
    n_edges: int
    n_nodes: int
    n_graph: int
    metric: str
    unit: str
    ablation: str
    kept: Float[Tensor, " prompt"]
    full: Float[Tensor, " prompt"]
    empty: Float[Tensor, " prompt"]
    complement: Float[Tensor, " prompt"]
    sets: tuple[Names, ...]
    kinds: Names
    without: Float[Tensor, "2 set prompt"]
    nodes: Names
    node_sets: tuple[Names, ...]
    node_effect: Float[Tensor, "node prompt"]
    node_chance: Float[Tensor, " other_node"]
    edges: Names
    edge_sets: tuple[Names, ...]
    edge_effect: Float[Tensor, "edge prompt"]
    edge_chance: Float[Tensor, " other_edge"]
    random_edges: Float[Tensor, " draw"]
    random_connected: Float[Tensor, " draw"]
    threshold: float
    min_gap: float
    notes: Names
    provenance: Provenance

    def __repr__(self) -> str:
        told = [f"faithfulness {self.faithfulness_interval()}"]
        if len(drawn := self.random_faithfulness()):
            told += [f"random connected circuits {float(drawn.mean()):.3g}, p {self.p_value():.2g}"]
        if len(self.sets) > 1:
            told += [f"incompleteness {self.incompleteness:.3g} {self.unit}"]
        if self.nodes:
            told += [f"{len(self.superfluous())} of {len(self.nodes)} nodes superfluous"]
        prompts = f"{len(self.full)} prompt{'s' * (len(self.full) != 1)}"
        return (
            f"CircuitEvaluation({self.circuit!r}, {self.n_edges:,} of {self.n_graph:,} edges; "
            f"{'; '.join(told)}; {prompts}, {self.ablation} ablation)"
        )

    # -- faithfulness ---------------------------------------------------------------------

    @property
    def faithfulness(self) -> float:
        """(F(C) - F(∅)) / (F(M) - F(∅)), of means over prompts: 0 empty, 1 the model, never clipped.

        Raises:
            GapError: the denominator is smaller than ``min_gap``.
        """
        return float(share(self.kept, self.full, self.empty, min_gap=self.min_gap))

    def faithfulness_interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Faithfulness with its bootstrap interval over prompts; NaN with one prompt."""
        return share_interval(
            self.kept, self.full, self.empty, min_gap=self.min_gap, level=level, seed=seed
        )

    @property
    def deviation(self) -> float:
        """\\|F(C) - F(M)\\| in ``unit``: the faithfulness of Wang et al. 2022, best at 0."""
        return abs(float(self.kept.double().mean() - self.full.double().mean()))

    def random_faithfulness(self, of: Chance = "connected") -> Float[Tensor, " draw"]:
        """The faithfulness of each random circuit of as many edges."""
        scores = self.random_connected if of == "connected" else self.random_edges
        whole = gap(self.full, self.empty, min_gap=self.min_gap)
        return (scores.double() - self.empty.double().mean()) / whole

    def p_value(self, of: Chance = "connected") -> float:
        """How often a random circuit of as many edges is at least as near the model as this one.

        ``(1 + number of random circuits with |1 - f| ≤ the circuit's) / (1 + number of random
        circuits)``, never 0 (Phipson & Smyth 2010).
        """
        distance = (1 - self.random_faithfulness(of)).abs()
        near = int((distance <= abs(1 - self.faithfulness) + 1e-9).sum())
        return (1 + near) / (1 + len(distance))

    # -- completeness ---------------------------------------------------------------------

    @property
    def incompleteness(self) -> float:
        """The largest \\|F(C \\ K) - F(M \\ K)\\| that was found, in ``unit``; 0 is complete.

        A lower bound: a set that was not tried may be worse.
        """
        return float(self._missing().abs().max())

    def _missing(self) -> Float[Tensor, " set"]:
        circuit, model = self.without.double().mean(-1)
        return circuit - model

    def completeness_frame(self) -> DataFrame:
        """One row for each set K, the worst first.

        Columns: ``kind``, ``set``, ``circuit`` (F(C \\ K)), ``model`` (F(M \\ K)), ``incompleteness``
        (the size of their difference, in ``unit``), ``low`` and ``high`` (95% interval over prompts of
        the signed difference).
        """
        import pandas as pd

        circuit, model = self.without.double()
        interval = bootstrap(circuit - model)
        frame = pd.DataFrame({
            "kind": list(self.kinds), "set": [" ".join(one) for one in self.sets],
            "circuit": circuit.mean(-1).tolist(), "model": model.mean(-1).tolist(),
            "incompleteness": self._missing().abs().tolist(),
            "low": interval.low.tolist(), "high": interval.high.tolist(),
        })  # fmt: skip
        return frame.sort_values(
            "incompleteness", ascending=False, kind="stable", ignore_index=True
        )

    # -- minimality -----------------------------------------------------------------------

    @property
    def scale(self) -> float:
        """What effects are shares of: \\|F(M)\\|, as in the paper; where that is smaller than
        ``min_gap`` (KL is 0 for the model itself) \\|F(M) - F(∅)\\|. In ``unit``."""
        whole = abs(float(self.full.double().mean()))
        return whole if whole >= self.min_gap else abs(gap(self.full, self.empty, min_gap=0.0))

    def minimality(self, of: Members = "nodes") -> Float[Tensor, " member"]:
        """max over K of \\|F(C \\ (K ∪ {v})) - F(C \\ K)\\| for each member, in ``unit``."""
        effect = self.node_effect if of == "nodes" else self.edge_effect
        return effect.double().mean(-1).abs()

    def superfluous(self, of: Members = "nodes") -> Names:
        """Members that were not shown to be needed.

        Their effect is below ``threshold`` (as a share of :attr:`scale`), or no larger than what
        19 of 20 random non-members do when they are put in.
        """
        members = self.nodes if of == "nodes" else self.edges
        scores = self.minimality(of).tolist()
        bar = max(self.threshold * self.scale, self.chance_level(of))
        return tuple(v for v, score in zip(members, scores, strict=True) if score <= bar)

    def chance_level(self, of: Members = "nodes") -> float:
        """The 95% quantile of what random non-members do, in ``unit``; 0 if there are none."""
        drawn = (self.node_chance if of == "nodes" else self.edge_chance).double().abs()
        return float(torch.quantile(drawn, 0.95, interpolation="higher")) if len(drawn) else 0.0

    def minimality_frame(self, of: Members = "nodes") -> DataFrame:
        """One row for each node (or edge), the least needed first.

        Columns: ``member``, ``minimality`` (in ``unit``), ``share`` (of :attr:`scale`), ``effect``
        (signed: negative if the member helps), ``low``, ``high`` (95% interval of the effect over
        prompts), ``set`` (the K it was found at), ``needed``.
        """
        import pandas as pd

        if of not in ("nodes", "edges"):
            raise ResultError(f"of={of!r}; expected 'nodes' or 'edges'.")
        nodes = of == "nodes"
        effect = (self.node_effect if nodes else self.edge_effect).double()
        members = self.nodes if nodes else self.edges
        interval = bootstrap(effect)
        frame = pd.DataFrame({
            "member": list(members), "minimality": self.minimality(of).tolist(),
            "share": (self.minimality(of) / self.scale).tolist(),
            "effect": effect.mean(-1).tolist(), "low": interval.low.tolist(),
            "high": interval.high.tolist(),
            "set": [" ".join(k) for k in (self.node_sets if nodes else self.edge_sets)],
        })  # fmt: skip
        frame["needed"] = ~frame["member"].isin(self.superfluous(of))
        return frame.sort_values("minimality", kind="stable", ignore_index=True)

    # -- all together ---------------------------------------------------------------------

    def to_frame(self) -> DataFrame:
        """One row for each measure.

        Columns: ``measure``, ``value``, ``low``, ``high`` (95% interval over prompts; of the random
        circuits: the middle 95% of the draws), ``unit``, ``p`` (of faithfulness, against the random
        circuits of that row).
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []

        def row(measure: str, value: float | int, low: Any = None, high: Any = None, unit: str = "",
                p: float | None = None) -> None:  # fmt: skip
            ends = [float("nan") if end is None else float(end) for end in (low, high)]
            rows.append({"measure": measure, "value": float(value), "low": ends[0], "high": ends[1],
                         "unit": unit or self.unit, "p": p})  # fmt: skip

        for name in ("kept", "full", "empty", "complement"):
            interval = bootstrap(getattr(self, name))
            row(_NAMES[name], float(interval.mean), interval.low, interval.high)
        whole = self.faithfulness_interval()
        row("faithfulness", float(whole.mean), whole.low, whole.high, "share")
        rest = share_interval(self.complement, self.full, self.empty, min_gap=self.min_gap)
        row("faithfulness of the complement", float(rest.mean), rest.low, rest.high, "share")
        kinds: tuple[Chance, Chance] = ("connected", "edges")
        for of in kinds:
            drawn = self.random_faithfulness(of)
            if len(drawn):
                low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975]).to(drawn))
                what = "random connected circuits" if of == "connected" else "random edges"
                row(f"faithfulness, {what}", float(drawn.mean()), low, high, "share",
                    self.p_value(of))  # fmt: skip
        row("|F(C) - F(M)|", self.deviation)
        row("incompleteness, worst K", self.incompleteness)
        row("incompleteness, mean over K", float(self._missing().abs().mean()))
        parts: tuple[Members, Members] = ("nodes", "edges")
        for part in parts:
            if len(self.minimality(part)):
                row(f"minimality, least of the {part}", float(self.minimality(part).min()))
                row(f"superfluous {part}", len(self.superfluous(part)), unit="count")
        row("edges", self.n_edges, unit="count")
        row("share of the model's edges", self.n_edges / self.n_graph, unit="share")
        return pd.DataFrame(rows)

    def plot(self, *, title: str | None = None) -> Figure:
        """Faithfulness beside chance, F(C \\ K) against F(M \\ K), and what each node is needed for."""
        from interp.circuits.evaluation_figure import draw

        return draw(self, title)


_NAMES = {"kept": "F(C)", "full": "F(M)", "empty": "F(∅)", "complement": "F(M \\ C)"}
