"""What a circuit's file says, beside what was measured just now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Verification"]

_NAMED = 3  # edges that are named in the figure: those furthest off


@dataclass(frozen=True, eq=False, repr=False)
class Verification(Stored):
    """Numbers as recorded and as measured again.

    Attributes:
        circuit: its name.
        names: ``"full"``, ``"empty"``, ``"circuit"`` (m(C)), ``"faithfulness"``, and ``"without
            <edge>"`` for each member: m(C \\ {e}) - m(C).
        recorded, measured: in ``unit`` (faithfulness: a share); NaN where the file or the circuit
            has no such member.
        tolerance: how far apart the two may be.
        unit: the metric's.
        problems: what differs besides: the weights, the prompts.
        provenance: model, prompts, seed, versions and the call.
    """

    circuit: str
    names: tuple[str, ...]
    recorded: Float[Tensor, " number"]
    measured: Float[Tensor, " number"]
    tolerance: Float[Tensor, " number"]
    unit: str
    problems: tuple[str, ...]
    provenance: Provenance

    @property
    def agrees(self) -> Bool[Tensor, " number"]:
        """Which numbers are what was recorded; False where one of the two is missing."""
        return (self.measured - self.recorded).abs() <= self.tolerance

    @property
    def ok(self) -> bool:
        """Whether every number, the weights and the prompts are as recorded."""
        return bool(self.agrees.all()) and not self.problems

    @property
    def failures(self) -> tuple[str, ...]:
        """What does not hold, a sentence each."""
        out = list(self.problems)
        rows = zip(self.names, self.recorded.tolist(), self.measured.tolist(), strict=True)
        for (name, old, new), fine in zip(rows, self.agrees.tolist(), strict=True):
            if fine:
                continue
            if old != old:
                out.append(f"{name}: in the circuit ({new:.5g}), but not in its record")
            elif new != new:
                out.append(f"{name}: in the record ({old:.5g}), but not in the circuit")
            else:
                out.append(f"{name}: recorded {old:.6g}, measured {new:.6g}")
        return tuple(out)

    def __repr__(self) -> str:
        if self.ok:
            return f"Verification({self.circuit!r}: all {len(self.names)} numbers as recorded)"
        shown = "; ".join(self.failures[:3])
        more = f"; and {len(self.failures) - 3} more" if len(self.failures) > 3 else ""
        return f"Verification({self.circuit!r} FAILED: {shown}{more})"

    def to_frame(self) -> DataFrame:
        """One row for each number: ``name``, ``recorded``, ``measured``, ``tolerance``, ``agrees``."""
        import pandas as pd

        return pd.DataFrame({
            "name": list(self.names), "recorded": self.recorded.tolist(),
            "measured": self.measured.tolist(), "tolerance": self.tolerance.tolist(),
            "agrees": self.agrees.tolist(),
        })  # fmt: skip

    def plot(self, *, title: str | None = None) -> Figure:
        """Each member's effect as measured against as recorded; on the line they agree, and the
        edges furthest off are named."""
        from interp.figures import scatter

        shown = [i for i, name in enumerate(self.names) if name.startswith("without ")]
        both = [i for i in shown if self.recorded[i] == self.recorded[i]
                and self.measured[i] == self.measured[i]]  # fmt: skip
        off = (self.measured - self.recorded).abs()
        worst = sorted((i for i in both if not bool(self.agrees[i])), key=lambda i: -float(off[i]))
        named = [(both.index(i), self.names[i].removeprefix("without ")) for i in worst[:_NAMED]]
        held = f"{int(self.agrees.sum())} of {len(self.names)} numbers as recorded"
        return scatter(
            self.recorded[both].tolist(), self.measured[both].tolist(), named=named,
            title=title or f"{self.circuit}: {held}",
            x_name=f"recorded effect of removing an edge ({self.unit})",
            y_name=f"measured ({self.unit})",
        )  # fmt: skip
