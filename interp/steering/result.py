"""A dose-response curve with the band of random vectors, and what else the vector did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.geometry.correlation import spearman
from interp.intervals import Interval, bootstrap
from interp.results import Axis, Provenance, Stored, cell_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["SteeringResult"]


@dataclass(frozen=True, eq=False, repr=False)
class SteeringResult(Stored):
    """What a vector did to a metric at each strength, and what random vectors did.

    Attributes:
        sites: where the vector was added, each alone.
        strengths: multiples of the vector, ascending.
        values: the metric's mean over prompts, in ``unit``.
        per_prompt: the same for each prompt.
        baseline: each prompt's score without an edit.
        control: the mean under each random vector of the same length.
        relative_norm: the vector's length in units of the activations' mean length.
        reliability: the vector's split-half cosine.
        side_effects: on neutral text, ``[..., 0]`` KL(unsteered ‖ steered) and ``[..., 1]`` nll of the
            steered model, both in nats per token; None without neutral text.
        control_side_effects: the same under random vectors.
        neutral_nll: nll of the unsteered model on the neutral text.
        metric, unit: what was measured.
        answers, foils: the tokens compared, as text.
        provenance: model, prompts, seed, versions and the call.
    """

    sites: tuple[str, ...]
    strengths: tuple[float, ...]
    values: Float[Tensor, "site strength"]
    per_prompt: Float[Tensor, "site strength prompt"]
    baseline: Float[Tensor, " prompt"]
    control: Float[Tensor, "site draw strength"]
    relative_norm: Float[Tensor, " site"]
    reliability: Float[Tensor, " site"]
    side_effects: Float[Tensor, "site strength 2"] | None
    control_side_effects: Float[Tensor, "site draw strength 2"] | None
    neutral_nll: float | None
    metric: str
    unit: str
    answers: tuple[str, ...] | None
    foils: tuple[str, ...] | None
    provenance: Provenance

    def __repr__(self) -> str:
        some = ", ".join(self.sites[:3]) + (", ..." if len(self.sites) > 3 else "")
        doses = ", ".join(f"{dose:g}" for dose in self.strengths)
        ends = "; ".join(f"{row[0]:.3g} to {row[-1]:.3g}" for row in self.values[:3])
        return (
            f"SteeringResult({some} at strengths {doses}; {self.metric} in {self.unit}: {ends}, "
            f"unsteered {self.baseline.mean():.3g}; {len(self.baseline)} prompts, "
            f"{self.control.shape[1]} random vectors)"
        )

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Bootstrap interval of ``values`` over prompts."""
        return bootstrap(self.per_prompt, level=level, seed=seed)

    def slope(self) -> Float[Tensor, " site"]:
        """Change of the metric for each unit of strength: the least-squares line's slope."""
        return _slope(self.values, self.strengths)

    def control_slope(self) -> Float[Tensor, "site draw"]:
        """The same for each random vector."""
        return _slope(self.control, self.strengths)

    def spearman(self) -> Float[Tensor, " site"]:
        """Rank correlation of the mean metric with strength: 1 rises at each step, -1 falls.

        It says nothing about size. A small push of any direction is close to linear, so random
        vectors reach ±1 too: read it beside the slope.
        """
        doses = torch.tensor(self.strengths, dtype=torch.float64)
        return torch.stack([_spearman(row, doses) for row in self.values])

    def p_value(self) -> Float[Tensor, " site"]:
        """How often a random vector's slope is at least as steep, up or down; never 0.

        ``(1 + count) / (1 + number of random vectors)`` (Phipson & Smyth 2010); NaN without any.
        """
        draws = self.control.shape[1]
        if draws == 0:
            return torch.full_like(self.slope(), torch.nan)
        steeper = (self.control_slope().abs() >= self.slope().abs()[:, None] - 1e-9).sum(1)
        return (1 + steeper) / (1 + draws)

    def summary(self) -> DataFrame:
        """One row for each site.

        Columns: ``slope`` (metric per unit of strength), ``monotone`` (every step in one direction),
        ``spearman``, ``control_slope`` (mean absolute slope of the random vectors), ``p_value``,
        ``relative_norm``, ``reliability``.
        """
        import pandas as pd

        steps = self.values.diff(dim=-1)
        return pd.DataFrame({
            "site": list(self.sites),
            "slope": self.slope().tolist(),
            "monotone": ((steps > 0).all(-1) | (steps < 0).all(-1)).tolist(),
            "spearman": self.spearman().tolist(),
            "control_slope": self.control_slope().abs().mean(1).tolist(),
            "p_value": self.p_value().tolist(),
            "relative_norm": self.relative_norm.tolist(),
            "reliability": self.reliability.tolist(),
        })  # fmt: skip

    def to_frame(self) -> DataFrame:
        """One row for each site and strength.

        Columns: ``value`` with its 95% interval ``low``, ``high``; ``effect`` (value less the unsteered
        mean); ``control_low``, ``control_mean``, ``control_high`` (least, mean and greatest of the
        random vectors); with neutral text ``neutral_kl``, ``neutral_nll`` and ``control_kl`` (mean).
        """
        import pandas as pd

        axes = (Axis("site", self.sites), Axis("strength", tuple(map(str, self.strengths))))
        frame: dict[str, Any] = {"site": cell_labels(axes)["site"]}
        frame["strength"] = list(self.strengths) * len(self.sites)
        interval = self.interval()
        columns: dict[str, Tensor] = {
            "value": self.values, "low": interval.low, "high": interval.high,
            "effect": self.values - self.baseline.mean(),
        }  # fmt: skip
        if self.control.shape[1]:
            columns |= {"control_low": self.control.amin(1), "control_mean": self.control.mean(1),
                        "control_high": self.control.amax(1)}  # fmt: skip
        if self.side_effects is not None and self.control_side_effects is not None:
            columns |= {"neutral_kl": self.side_effects[..., 0],
                        "neutral_nll": self.side_effects[..., 1],
                        "control_kl": self.control_side_effects[..., 0].mean(1)}  # fmt: skip
        return pd.DataFrame(frame | {n: x.flatten().tolist() for n, x in columns.items()})

    def plot(self, *, title: str | None = None) -> Figure:
        """The curve of each site, its 95% interval, and the range of the random vectors.

        With neutral text, a second row has the KL from the unsteered model.
        """
        from interp.steering.figure import dose_response

        interval = self.interval()
        kl = None if self.side_effects is None else self.side_effects[..., 0]
        null = self.control_side_effects
        return dose_response(
            self.strengths, self.sites, self.values, (interval.low, interval.high), self.control,
            baseline=float(self.baseline.mean()),
            side=kl, side_control=None if null is None else null[..., 0],
            title=title or f"steering {self.provenance.model}",
            unit=self.metric if self.unit == self.metric else f"{self.metric} ({self.unit})",
        )  # fmt: skip


def _slope(
    values: Float[Tensor, "*rest strength"], strengths: tuple[float, ...]
) -> Float[Tensor, "*rest"]:
    x = torch.tensor(strengths, dtype=values.dtype)
    x = x - x.mean()
    return (values * x).sum(-1) / (x * x).sum()


def _spearman(values: Float[Tensor, " strength"], doses: Float[Tensor, " strength"]) -> Tensor:
    return spearman(values.double(), doses)
