"""A faithfulness curve as a page needs it: how many edges, how faithful, within which bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.circuits.member_curve import MEMBERS
from interp.errors import CircuitError

__all__ = ["Points"]

#: How a curve may have chosen its edges, and whether that follows the sign of the scores.
_SELECTIONS = {"top |score|": False, "top signed": True, MEMBERS: False}


@dataclass(frozen=True)
class Points:
    """Measured points of a curve, by rising number of edges.

    Attributes:
        n_edges: how many edges each circuit had.
        faithfulness: 0 the empty circuit, 1 the model.
        low, high: the bounds of its interval; empty where there are none.
        selection: how the edges were chosen.
        signed: whether by signed score; None: in another way than by score alone.
        total: how many edges the graph of the curve has; None where it does not say.
    """

    n_edges: tuple[int, ...]
    faithfulness: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    selection: str = "top |score|"
    signed: bool | None = False
    total: int | None = None

    @classmethod
    def read(cls, curve: Any) -> Points | None:
        """Read what ``interp.circuits.curve`` returns, or a mapping of ``n_edges`` and ``faithfulness``.

        A mapping may also have ``low`` and ``high`` and say how its edges were chosen
        (``selection``). None stays None.

        Raises:
            CircuitError: it has none of these, or they do not fit together.
        """
        if curve is None:
            return None
        given = curve if isinstance(curve, Mapping) else _of_result(curve)
        names = [
            name
            for name in ("n_edges", "faithfulness", "low", "high")
            if given.get(name) is not None
        ]
        columns = {name: _numbers(given[name]) for name in names}
        lengths = {name: len(column) for name, column in columns.items()}
        if (
            not {"n_edges", "faithfulness"} <= set(names)
            or len(set(lengths.values())) != 1
            or not lengths["n_edges"]
        ):
            raise CircuitError(
                f"a curve of {lengths or type(curve).__name__} cannot be drawn; expected as many numbers in "
                "n_edges as in faithfulness (and in low and high, if given), and at least one."
            )
        counts = columns["n_edges"]
        if any(n < 0 or n != int(n) for n in counts) or sorted(counts) != list(counts):
            raise CircuitError(
                f"n_edges={counts} of a curve; expected whole numbers that do not fall."
            )
        if not all(map(math.isfinite, columns["faithfulness"])):
            raise CircuitError("a curve with faithfulness that is no number; expected finite ones.")
        selection = str(given.get("selection", "top |score|"))
        return cls(
            tuple(int(n) for n in counts), columns["faithfulness"], columns.get("low", ()),
            columns.get("high", ()), selection, _SELECTIONS.get(selection), given.get("total"),
        )  # fmt: skip

    @property
    def own(self) -> bool:
        """Whether its edges are the circuit's first, and not the graph's."""
        return self.selection == MEMBERS

    def table(self) -> dict[str, Any]:
        """For the page, without what is no number."""
        bounds = {name: [_short(x) for x in getattr(self, name)] for name in ("low", "high")}
        return {"n": list(self.n_edges), "f": [_short(x) for x in self.faithfulness], **bounds,
                "selection": self.selection, "other": self.signed is None}  # fmt: skip


def _of_result(curve: Any) -> dict[str, Any]:
    """The columns of a :class:`FaithfulnessCurve`, or of anything with such attributes."""
    get = lambda name: getattr(curve, name, None)  # noqa: E731
    out = {name: get(name) for name in ("n_edges", "faithfulness", "low", "high")}
    out["selection"] = get("selection") or "top |score|"
    if get("counts") is not None:
        out |= {"n_edges": curve.counts, "total": get("n_edges")}
    if out["low"] is None and callable(get("interval")):
        interval = curve.interval()
        out |= {"low": interval.low, "high": interval.high}
    return out


def _numbers(values: Any) -> tuple[float, ...]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    return tuple(float(value) for value in listed) if isinstance(listed, Sequence) else ()


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
