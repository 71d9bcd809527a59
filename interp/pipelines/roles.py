"""Who plays which role, with the behaviour behind each and what an untrained twin does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.graph.names import Node
from interp.pipelines.behaviour import Behaviour
from interp.pipelines.kinds import MARGIN, Criterion, Kind
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Roles", "assign"]


@dataclass(frozen=True, eq=False, repr=False)
class Roles(Stored):
    """Roles of nodes, by measured behaviour.

    Attributes:
        nodes: heads ``a0.h0`` and MLPs ``m0``, in the order in which they write.
        behaviours, units: what was measured, and in which unit.
        values: of each node, mean over prompts; NaN where it was not measured.
        low, high: 95% bootstrap bounds over prompts; NaN where there are none.
        twin: the same of the untrained twin.
        kinds: each role's definition: ``name``, ``source`` and ``criteria`` (behaviour, least).
        provenance: model, prompts, versions and the call.
    """

    nodes: tuple[str, ...]
    behaviours: tuple[str, ...]
    units: tuple[str, ...]
    values: Float[Tensor, "behaviour node"]
    low: Float[Tensor, "behaviour node"]
    high: Float[Tensor, "behaviour node"]
    twin: Float[Tensor, "behaviour node"]
    kinds: tuple[dict[str, Any], ...]
    provenance: Provenance

    def __repr__(self) -> str:
        held = [f"{name}: {', '.join(self.found(name)) or 'none'}" for name in self.names]
        return f"Roles({'; '.join(held)})"

    @property
    def names(self) -> tuple[str, ...]:
        """Every role that was looked for."""
        return tuple(kind["name"] for kind in self.kinds)

    def found(self, role: str) -> tuple[str, ...]:
        """The nodes that play a role.

        Raises:
            ResultError: no such role was looked for.
        """
        held = self._passes(self._criteria(role), self.values, self.low, self.high)
        return tuple(node for node, one in zip(self.nodes, held.tolist(), strict=True) if one)

    def of(self, node: str) -> tuple[str, ...]:
        """The roles of a node."""
        return tuple(name for name in self.names if node in self.found(name))

    def by_node(self) -> dict[str, tuple[str, ...]]:
        """Every node that has a role, with its roles."""
        found = {node: self.of(node) for node in self.nodes}
        return {node: roles for node, roles in found.items() if roles}

    def in_twin(self, role: str) -> tuple[str, ...]:
        """The twin's nodes that reach the thresholds of a role: expected to be none."""
        held = torch.ones(len(self.nodes), dtype=torch.bool)
        for criterion in self._criteria(role):
            sign = 1.0 if criterion.least > 0 else -1.0
            held &= sign * self.twin[self._row(criterion.behaviour)] >= abs(criterion.least)
        return tuple(node for node, one in zip(self.nodes, held.tolist(), strict=True) if one)

    def best_of_twin(self, criterion: Criterion) -> float:
        """How far any node of the twin goes, in the direction of the criterion."""
        row = self.twin[self._row(criterion.behaviour)]
        row = row[~row.isnan()]
        if not len(row):
            return float("nan")
        return float(row.max() if criterion.least > 0 else row.min())

    def _criteria(self, role: str) -> tuple[Criterion, ...]:
        for kind in self.kinds:
            if kind["name"] == role:
                return tuple(Criterion(str(name), float(least)) for name, least in kind["criteria"])
        raise ResultError(f"no role {role!r} was looked for; nearest: {nearest(role, self.names)}.")

    def _row(self, behaviour: str) -> int:
        return self.behaviours.index(behaviour)

    def _passes(
        self, criteria: Sequence[Criterion], values: Tensor, low: Tensor, high: Tensor
    ) -> Bool[Tensor, " node"]:
        known = [c for c in criteria if not self.values[self._row(c.behaviour)].isnan().all()]
        held = torch.full((len(self.nodes),), bool(known))
        for criterion in known:
            row, sign = self._row(criterion.behaviour), 1.0 if criterion.least > 0 else -1.0
            near = sign * (low if sign > 0 else high)[row]  # the bound next to zero
            beyond = MARGIN * max(0.0, sign * self.best_of_twin(criterion))
            held &= sign * values[row] >= abs(criterion.least)
            held &= near.isnan() | (near > 0)
            held &= sign * values[row] > beyond
        return held

    def to_frame(self) -> DataFrame:
        """One row for each role of a node and each behaviour behind it.

        Columns: ``role``, ``node``, ``behaviour``, ``unit``, ``value`` with its 95% interval ``low``
        to ``high``, ``threshold``, ``twin`` (the furthest that any node of the untrained twin goes)
        and ``source``.
        """
        import pandas as pd

        rows = []
        for kind in self.kinds:
            for node in self.found(kind["name"]):
                place = self.nodes.index(node)
                for criterion in self._criteria(kind["name"]):
                    row = self._row(criterion.behaviour)
                    rows.append({
                        "role": kind["name"], "node": node, "behaviour": criterion.behaviour,
                        "unit": self.units[row], "value": float(self.values[row, place]),
                        "low": float(self.low[row, place]), "high": float(self.high[row, place]),
                        "threshold": criterion.least, "twin": self.best_of_twin(criterion),
                        "source": kind["source"],
                    })  # fmt: skip
        columns = ["role", "node", "behaviour", "unit", "value", "low", "high", "threshold", "twin",
                   "source"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def measured(self) -> DataFrame:
        """Every node, and all that was measured of it: a column for each behaviour."""
        import pandas as pd

        columns = dict(zip(self.behaviours, self.values.tolist(), strict=True))
        return pd.DataFrame({"node": self.nodes, **columns})

    def plot(self, *, title: str | None = None) -> Figure:
        """A row for each node with a role, a column for each behaviour behind one.

        A cell says the value, and after the bar the twin's furthest. Its colour is the value as a
        multiple of the threshold, cut off at 3.

        Raises:
            ResultError: no node has a role.
        """
        from interp.pipelines.roles_figure import role_table

        held = self.by_node()
        if not held:
            raise ResultError("no node has a role, so there is nothing to draw; see measured().")
        wanted: dict[str, Criterion] = {}
        for kind in self.kinds:
            if self.found(kind["name"]):
                for criterion in self._criteria(kind["name"]):
                    wanted.setdefault(criterion.behaviour, criterion)
        places = [self.nodes.index(node) for node in held]
        rows = [self._row(name) for name in wanted]
        least = torch.tensor([abs(one.least) for one in wanted.values()])
        own = self.values[rows][:, places].T
        best = [self.best_of_twin(one) for one in wanted.values()]
        return role_table(
            [[_cell(*pair) for pair in zip(row, best, strict=True)] for row in own.tolist()],
            own / least,
            nodes=[f"{node}  {', '.join(roles)}" for node, roles in held.items()],
            behaviours=[f"{name} ({self.units[i]})" for name, i in zip(wanted, rows, strict=True)],
            title=title
            or f"roles in {self.provenance.model}: value | furthest of its untrained twin",
        )


def _cell(value: float, twin: float) -> str:
    """A value and the twin's; a zero has no sign."""
    return "" if value != value else f"{round(value, 2) + 0.0:.2f} | {round(twin, 2) + 0.0:.2f}"


def assign(
    kinds: Sequence[Kind], own: Sequence[Behaviour], twin: Sequence[Behaviour],
    provenance: Provenance,
) -> Roles:  # fmt: skip
    """Roles from what a model's nodes and its twin's do.

    Args:
        kinds: the roles looked for; each behaviour in their criteria must have been measured.
        own, twin: the same behaviours of both, in one order.
    """
    found = {node: None for one in own for node in one.nodes}
    nodes = tuple(sorted(found, key=_order))

    def grid(rows: Sequence[tuple[tuple[str, ...], Tensor]]) -> Tensor:
        out = torch.full((len(rows), len(nodes)), torch.nan)
        for i, (names, values) in enumerate(rows):
            out[i, [nodes.index(name) for name in names]] = values.float()
        return out

    bounds = [one.bounds() for one in own]
    return Roles(
        nodes=nodes,
        behaviours=tuple(one.name for one in own),
        units=tuple(one.unit for one in own),
        values=grid([(one.nodes, one.values) for one in own]),
        low=grid([(one.nodes, b[0]) for one, b in zip(own, bounds, strict=True)]),
        high=grid([(one.nodes, b[1]) for one, b in zip(own, bounds, strict=True)]),
        twin=grid([(one.nodes, one.values) for one in twin]),
        kinds=tuple(_plain(one) for one in kinds),
        provenance=provenance,
    )


def _plain(kind: Kind) -> dict[str, Any]:
    criteria = tuple((one.behaviour, one.least) for one in kind.criteria)
    return {"name": kind.name, "source": kind.source, "criteria": criteria}


def _order(name: str) -> tuple[int, bool, int]:
    """Layer by layer, heads before the MLP."""
    node = Node.parse(name)
    return node.layer or 0, node.kind == "mlp", node.index or 0
