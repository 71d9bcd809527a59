"""What a training run told about one dictionary: its curves, its firing, its configuration.

A record is what a log (:mod:`interp.training.logs`) holds of one dictionary, with how often each of
its features fires at the end. It says how training went; how good the dictionary is on data that it has
not seen is a question for :mod:`interp.evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.results import Provenance, Stored
from interp.training.identity import as_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["LIVE", "TrainingRecord", "compare", "plot_density"]

#: A feature that fires on a smaller share of tokens is not live (Dunefsky et al. 2024: log10 > -4).
LIVE = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class TrainingRecord(Stored):
    """How one dictionary was trained.

    Attributes:
        name: of the dictionary in its run.
        config: what was asked for; JSON values.
        columns: the metrics that were logged. The trainer's are ``loss``; ``fvu``, the fraction of
            variance unexplained (0 is perfect, 1 is the mean's); ``l0``, active features per token;
            ``dead``, the share of features that are dead; ``lr``; ``coefficient``, the penalty's; ``tokens`` so far; ``tokens_per_s``; ``grad_norm``; and what the objective adds.
        steps: after which steps they were logged.
        values: the metrics in float64, one row for each step; NaN where one was not logged.
        firing: for each feature the share of tokens on which it was active, as a moving average at
            the end; of a cross-layer transcoder layer after layer.
        seconds: that the steps took, all sessions of the run together.
        provenance: model, seed, versions and the call.
    """

    name: str
    config: dict[str, Any]
    columns: tuple[str, ...]
    steps: Int[Tensor, " row"]
    values: Float[Tensor, "row column"]
    firing: Float[Tensor, " feature"]
    seconds: float
    provenance: Provenance

    @classmethod
    def of(
        cls,
        name: str,
        config: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        firing: Float[Tensor, "*feature"],
        seconds: float,
        provenance: Provenance,
    ) -> TrainingRecord:
        """The record of one dictionary from the rows of a log, in which others may stand too.

        Without rows (nothing was logged, as on all ranks but the first) there are no curves.

        Raises:
            ResultError: there are rows, but none of this dictionary.
            TrainingError: the configuration is not JSON.
        """
        own = [row for row in rows if row["dictionary"] == name]
        if rows and not own:
            known = ", ".join(sorted({str(row["dictionary"]) for row in rows}))
            raise ResultError(f"no row of the log is of {name!r}; it has rows of {known}.")
        columns = tuple(dict.fromkeys(key for row in own for key in row))
        columns = tuple(key for key in columns if key not in ("step", "dictionary"))
        table = [[float(row.get(column, math.nan)) for column in columns] for row in own]
        return cls(
            name=name,
            config=as_json(config, "configuration of a record"),
            columns=columns,
            steps=torch.tensor([row["step"] for row in own], dtype=torch.int64),
            values=torch.tensor(table, dtype=torch.float64).view(len(own), len(columns)),
            firing=firing.detach().float().cpu().flatten(),
            seconds=float(seconds),
            provenance=provenance,
        )

    def __repr__(self) -> str:
        shown = [f"{name} {value:.3g}" for name, value in self._last().items()
                 if name in ("loss", "fvu", "l0", "dead")]  # fmt: skip
        return (
            f"TrainingRecord({self.name}: {self._steps():,} steps in {self.seconds:.0f} s; "
            f"{', '.join(shown) or 'no metric'}; {self.live():.1%} of {len(self.firing)} features live)"
        )

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> Float[Tensor, " row"]:
        """A metric's values, one for each logged step: ``record["fvu"]``.

        Raises:
            ResultError: it was not logged.
        """
        if column not in self.columns:
            raise ResultError(
                f"{column!r} was not logged; nearest: {nearest(column, self.columns)}. "
                f"There is {', '.join(self.columns)}."
            )
        return self.values[:, self.columns.index(column)]

    def live(self) -> float:
        """The share of features that fire on more than one token in ten thousand (:data:`LIVE`)."""
        return float((self.firing > LIVE).double().mean())

    def summary(self) -> dict[str, Any]:
        """The last value of each metric, and ``name``, ``steps``, ``seconds``, ``features``, ``live``."""
        return {
            "name": self.name,
            "steps": self._steps(),
            "seconds": self.seconds,
            **self._last(),
            "features": len(self.firing),
            "live": self.live(),
        }

    def _last(self) -> dict[str, float]:
        last = self.values[-1].tolist() if len(self.values) else []
        return dict(zip(self.columns, last, strict=True))

    def _steps(self) -> int:
        return int(self.steps[-1]) if len(self.steps) else 0

    def to_frame(self) -> DataFrame:
        """One row for each logged step: ``step``, ``dictionary``, a column for each metric."""
        import pandas as pd

        frame = pd.DataFrame(self.values.numpy(), columns=list(self.columns))
        frame.insert(0, "dictionary", self.name)
        frame.insert(0, "step", self.steps.numpy())
        return frame

    def plot(self, *, title: str | None = None) -> Figure:
        """The run: loss, FVU, L0, the share of dead features, the schedules, the gradient's norm.

        Panels of what was not logged are left out.

        Raises:
            ResultError: nothing of that was logged.
        """
        from interp.training.record_figure import curves

        tokens = self["tokens"].tolist() if "tokens" in self else None
        metrics = {name: self[name].tolist() for name in self.columns}
        return curves(self.steps.tolist(), tokens, metrics, title=title or self.name)

    def plot_density(self, *, title: str | None = None) -> Figure:
        """How often features fire (see :func:`plot_density`)."""
        return plot_density(self.firing, title=title or f"how often features of {self.name} fire")


def plot_density(
    firing: Float[Tensor, " feature"], *, title: str = "how often features fire"
) -> Figure:
    """A histogram of log10 firing frequency, with the line above which a feature counts as live.

    Features that never fire have no logarithm: the title counts them.

    Args:
        firing: for each feature the share of tokens on which it is active, 0 to 1.

    Raises:
        ResultError: there are no features, or a number is no share.

    Source:
        Dunefsky et al. 2024, arXiv:2406.11944 (live: log10 firing frequency above -4).
    """
    from interp.training.record_figure import density

    shares = firing.detach().double().cpu().flatten()
    if not len(shares) or not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ResultError(
            f"firing has {len(shares)} numbers, not all of them shares; expected for each feature the "
            "share of tokens on which it is active, from 0 to 1."
        )
    return density(shares.numpy(), live=LIVE, title=title)


def compare(
    records: Sequence[TrainingRecord], *, title: str = "sparsity against reconstruction"
) -> Figure:
    """Dictionaries at the end of their training: FVU over L0, with the frontier.

    On the line stand those that no other beats on both: down and to the left is better.

    Raises:
        ResultError: no record, or one without L0 and FVU.
    """
    from interp.training.record_figure import frontier

    if not records or not all(len(record.values) for record in records):
        raise ResultError(
            f"{len(records)} records, not all with curves; expected at least one, and each with a log."
        )
    ends = [(record.name, float(record["l0"][-1]), float(record["fvu"][-1])) for record in records]
    return frontier(ends, title=title)
