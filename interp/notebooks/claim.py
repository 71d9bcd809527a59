"""A claim: a number over seeds, the threshold it must pass, and a null control that must not pass it.

A claim holds if every seed's number is on the threshold's good side *and* every null number is not.
So a claim can fail in two ways: the effect is absent, or the control shows it too. With the null numbers put in
the place of the measured ones (:meth:`Claim.swapped`) it must fail; a check that passes then checks
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from interp.errors import NotebookError

__all__ = ["Claim", "Paper"]


@dataclass(frozen=True)
class Paper:
    """What the paper reports on its own model.

    Attributes:
        says: the number, with its unit and model, in words.
        source: where in the paper, or in its code, it stands.
    """

    says: str
    source: str


@dataclass(frozen=True)
class Claim:
    """One headline number of a notebook.

    Attributes:
        name: what is claimed, as a short noun phrase with the unit.
        values: the number for each seed.
        above: values must be greater than this ...
        below: ... or smaller than this (one of the two is given).
        null: the same measure on the control, one number or more.
        control: what the control is: ``"untrained twin"``, ``"shuffled labels"``.
        null_bound: what null numbers must not pass; the threshold itself by default.
        basis: where the threshold comes from: the paper, or seeds not among those of the claim.
        paper: what the paper reports; None where it reports no such number.
    """

    name: str
    values: Mapping[int, float]
    null: Sequence[float]
    control: str
    basis: str | Sequence[int]
    above: float | None = None
    below: float | None = None
    null_bound: float | None = None
    paper: Paper | None = None

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise NotebookError(
                f"claim {self.name!r} was given above={self.above}, below={self.below}; expected one of "
                "the two: the threshold, and the side on which the claim holds."
            )
        object.__setattr__(self, "values", {int(s): float(v) for s, v in self.values.items()})
        object.__setattr__(self, "null", tuple(float(v) for v in self.null))
        if not self.values or not self.null:
            raise NotebookError(
                f"claim {self.name!r} has {len(self.values)} values and {len(self.null)} null values: "
                "a claim needs a number for each seed, and a control that must not show it."
            )
        if self.null_bound is not None and self._passes(self.null_bound):
            raise NotebookError(
                f"claim {self.name!r}: null_bound={self.null_bound:g} lies on the good side of the threshold "
                f"{self.threshold}, so a control could show the effect and be let through."
            )
        if not self.basis:
            raise NotebookError(
                f"claim {self.name!r}: basis={self.basis!r} says nothing; expected where its threshold comes "
                "from, in words, or the seeds that it was fixed on."
            )
        if not isinstance(self.basis, str):
            object.__setattr__(self, "basis", tuple(int(s) for s in self.basis))
            if both := sorted(set(self.basis) & set(self.values)):
                raise NotebookError(
                    f"claim {self.name!r}: the threshold was fixed on seeds {list(self.basis)}, and {both} are "
                    "seeds of the claim too. Fix thresholds on seeds that the claim does not use."
                )

    @property
    def threshold(self) -> str:
        """The threshold as it is read: ``"> 0.8"``."""
        return f"> {self.above:g}" if self.above is not None else f"< {self.below:g}"

    @property
    def null_threshold(self) -> str:
        """What the control must stay within: ``"≤ 0.8"``."""
        sign = "≤" if self.above is not None else "≥"
        return f"{sign} {self._null_bound:g}"

    @property
    def _null_bound(self) -> float:
        if self.null_bound is not None:
            return self.null_bound
        bound = self.below if self.above is None else self.above
        assert bound is not None
        return bound

    def _passes(self, value: float) -> bool:
        """NaN passes nothing."""
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def _silent(self, value: float) -> bool:
        bound = self._null_bound
        return value <= bound if self.above is not None else value >= bound

    @property
    def shown(self) -> bool:
        """Whether every seed's number passes the threshold."""
        return all(map(self._passes, self.values.values()))

    @property
    def refuted(self) -> bool:
        """Whether the control shows the effect too (or a number of it is missing: nan)."""
        return not all(map(self._silent, self.null))

    @property
    def holds(self) -> bool:
        """Whether every seed shows it and no control does."""
        return self.shown and not self.refuted

    def swapped(self) -> Claim:
        """The claim with the null numbers in the place of the measured ones. It must not hold."""
        null = [value for value in self.null if not math.isnan(value)]
        return replace(
            self, values={-1 - i: value for i, value in enumerate(null)} or {-1: math.nan}
        )

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return sum(self.values.values()) / len(self.values)

    @property
    def told(self) -> str:
        """The number with its range over seeds: ``"0.93 [0.91, 0.95]"``."""
        return spread(list(self.values.values()))

    @property
    def null_told(self) -> str:
        """The same for the control."""
        return spread(self.null)

    def __repr__(self) -> str:
        mark = "✓" if self.holds else "✗"
        return (
            f"{mark} {self.name}: {self.told} ({self.threshold}); {self.control}: {self.null_told} "
            f"({self.null_threshold})"
        )

    def to_json(self) -> dict[str, Any]:
        """The claim as JSON values, with what follows from it.

        JSON has no nan and no infinity: a notebook that held one could not be opened. They are written as text.
        """
        out = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }
        numbers = list(self.values.values())
        return {
            **out,
            "values": {str(seed): _finite(value) for seed, value in self.values.items()},
            "null": list(map(_finite, self.null)), "mean": _finite(self.mean),
            "low": _finite(min(numbers)), "high": _finite(max(numbers)), "holds": self.holds,
        }  # fmt: skip

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Claim:
        """The claim of :meth:`to_json`; what follows from it is computed again."""
        own = {key: read[key] for key in cls.__dataclass_fields__ if key in read}
        own["values"] = {int(seed): value for seed, value in own["values"].items()}
        if "paper" in own:
            own["paper"] = Paper(**own["paper"])
        return cls(**own)


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def spread(values: Sequence[float]) -> str:
    """A mean, and the lowest and highest value where there are several."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3g}"
    return f"{mean:.3g} [{min(values):.3g}, {max(values):.3g}]"
