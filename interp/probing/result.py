"""What linear probes read at each site, beside what they read where there is nothing to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InterpError, MetricError, ResultError, nearest
from interp.intervals import Interval
from interp.probing import scoring
from interp.results import Provenance, read_file, write_file
from interp.sites import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["ProbeResult"]


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult:
    """One cross-validated probe for each site, with its controls.

    Attributes:
        sites: their names, in the order given.
        kind: ``"logistic"``, ``"ridge"``, ``"linear"`` or ``"mean"``.
        metric: what ``score``, ``null`` and ``control`` are: ``"accuracy"``,
            ``"balanced_accuracy"`` or ``"r2"``.
        positions: where the sites were read: a position, or ``"each"`` for every token.
        classes: their names; None for real labels.
        labels: class numbers, or real labels.
        folds, documents: the fold and the document of each example; a document is in one fold.
        predicted: what the probe that never saw the example's document says.
        decision: of two classes the log-odds of the second; of more the score of the class
            predicted; of real labels the prediction.
        null: the score under shuffled labels, the same shuffles at each site.
        control: the score on control tasks (a random label for each word type); NaN where all
            examples are of one type.
        seen: share of examples whose word type the probe had met in training: where it is
            small, the control task is beyond any probe, and selectivity says no more than the null.
        l2: strength of the penalty in each fold.
        direction_l2: strength of the penalty of the probe fitted on all examples.
        weights: of the probe fitted on all examples, in the activation's own basis and shape.
        biases: the constants that go with them.
        provenance: model, seed, versions and the call.
    """

    sites: tuple[str, ...]
    kind: str
    metric: str
    positions: str
    classes: tuple[str, ...] | None
    labels: Float[Tensor, " n"]
    folds: Int[Tensor, " n"]
    documents: Int[Tensor, " n"]
    predicted: Float[Tensor, "site n"]
    decision: Float[Tensor, "site n"]
    null: Float[Tensor, "site shuffle"]
    control: Float[Tensor, "site draw"]
    seen: Float[Tensor, " site"]
    l2: Float[Tensor, "site fold"]
    direction_l2: Float[Tensor, " site"]
    weights: tuple[Float[Tensor, "..."], ...]
    biases: tuple[Float[Tensor, " k"], ...]
    provenance: Provenance

    def __repr__(self) -> str:
        best = int(self.score.argmax())
        null = f", shuffled {self.null.mean():.2f}" if self.null.shape[1] else ""
        what = f"{len(self.classes)} classes" if self.classes else "real labels"
        return (
            f"ProbeResult({len(self.sites)} sites; {what}, {len(self.labels)} examples of "
            f"{self.n_documents} documents; {self.metric} best {self.score[best]:.2f} at "
            f"{self.sites[best]}, baseline {self.baseline:.2f}{null})"
        )

    @property
    def n_documents(self) -> int:
        return int(self.documents.max()) + 1

    @property
    def score(self) -> Float[Tensor, " site"]:
        """The metric over all examples, each predicted by a probe that never saw its document."""
        return self.scores(self.metric)

    @property
    def baseline(self) -> float:
        """The score of always saying the commonest class of all examples (0 for R²)."""
        if self.classes is None:
            guess = scoring.naive(self.labels, self.folds)
        else:
            guess = (
                torch.bincount(self.labels.long()).argmax().to(self.labels).expand_as(self.labels)
            )
        return float(scoring.score(self.metric, guess, self.labels, self.folds))

    def scores(self, metric: str) -> Float[Tensor, " site"]:
        """Another score of the same predictions.

        Args:
            metric: ``"accuracy"``, ``"balanced_accuracy"``, ``"auc"`` (two classes, mean over
                folds) or ``"r2"``.

        Raises:
            MetricError: a score that these labels do not have.
        """
        have = ["r2"] if self.classes is None else ["accuracy", "balanced_accuracy"]
        have += ["auc"] if len(self.classes or ()) == 2 else []
        if metric not in have:
            raise MetricError(f"metric={metric!r}; these labels have {', '.join(have)}.")
        if metric == "auc":
            return scoring.auc(self.decision, self.labels, self.folds).float()
        labels = self.labels.expand_as(self.predicted)
        return scoring.score(metric, self.predicted, labels, self.folds).float()

    def fold_scores(self) -> Float[Tensor, "site fold"]:
        """The metric within each fold."""
        over, under = scoring.parts(
            self.metric, self.predicted, self.labels.expand_as(self.predicted), self.folds
        )
        one_hot = torch.nn.functional.one_hot(self.folds).double()
        return scoring.ratio(self.metric, over @ one_hot, under @ one_hot, draws=True).float()

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Bootstrap interval of the score, over **documents**; the probes are not fitted again."""
        return scoring.interval(
            self.metric, self.predicted, self.labels, self.folds, self.documents,
            level=level, seed=seed,
        )  # fmt: skip

    def p_values(self, *, corrected: bool = True) -> Float[Tensor, " site"]:
        """Share of shuffles (the true labels counted as one) that score as high as the truth.

        Args:
            corrected: compare with the best site of each shuffle, so that a small value counts
                however many sites were tried.

        With ``n`` shuffles no value is below 1 / (n + 1). NaN without shuffles.
        """
        if not self.null.shape[1]:
            return torch.full((len(self.sites),), torch.nan)
        null = self.null.max(0).values.expand_as(self.null) if corrected else self.null
        as_high = (null >= self.score[:, None] - 1e-6).sum(1)
        return (1 + as_high) / (1 + null.shape[1])

    def selectivity(self) -> Float[Tensor, " site"]:
        """The score less the mean score on control tasks; NaN where there were none."""
        return self.score - (self.control.mean(1) if self.control.shape[1] else torch.nan)

    def found(self, *, alpha: float = 0.05) -> list[str]:
        """Sites that survive their controls: the interval lies above the baseline, and the
        corrected p value is at most ``alpha``."""
        survive = (self.interval().low > self.baseline) & (self.p_values() <= alpha)
        return [site for site, yes in zip(self.sites, survive.tolist(), strict=True) if yes]

    def direction(self, site: str | Site) -> Float[Tensor, "..."]:
        """The probe's weights at a site, fitted on all examples, in the activation's own basis.

        Two classes: one vector, towards the second of ``classes``; more classes: one for each;
        real labels: one, towards larger ones. Its unit is the probe's output (log-odds, or the
        label's unit) for each unit of activation, so ``interp.Add(strength * direction)`` moves
        the probe's output by ``strength * ‖direction‖²``. What a probe reads is not yet what the
        model uses: steer with it to find out. The weights of ``kind="mean"`` are differences of
        means, in the activation's unit.

        Raises:
            ResultError: no probe was fitted at this site.
        """
        return self.weights[self._place(site)]

    def bias(self, site: str | Site) -> Float[Tensor, " k"]:
        """The constant that goes with :meth:`direction`."""
        return self.biases[self._place(site)]

    def _place(self, site: str | Site) -> int:
        name = str(site)
        if name not in self.sites:
            try:
                name = str(Site.parse(site))
            except InterpError:
                name = str(site)
        if name not in self.sites:
            raise ResultError(f"no probe at {name!r}; nearest: {nearest(name, self.sites)}.")
        return self.sites.index(name)

    def to_frame(self) -> DataFrame:
        """One row for each site.

        Columns: ``site``, the scores, ``low`` and ``high`` (interval of ``metric`` over
        documents), ``baseline``, ``null`` (mean under shuffled labels), ``p`` (corrected for the
        number of sites), ``control``, ``selectivity``, ``seen``.
        """
        import pandas as pd

        found = self.interval()
        columns: dict[str, Any] = {"site": list(self.sites), self.metric: self.score.tolist()}
        if self.classes is not None:
            for name in ("accuracy", "balanced_accuracy"):
                columns[name] = self.scores(name).tolist()
        if len(self.classes or ()) == 2:
            columns["auc"] = self.scores("auc").tolist()
        columns |= {
            "low": found.low.tolist(), "high": found.high.tolist(), "baseline": self.baseline,
            "null": self.null.mean(1).tolist(), "p": self.p_values().tolist(),
            "control": self.control.mean(1).tolist(), "selectivity": self.selectivity().tolist(),
            "seen": self.seen.tolist(),
        }  # fmt: skip
        return pd.DataFrame(columns)

    def plot(
        self, others: Mapping[str, ProbeResult] | None = None, *, title: str | None = None
    ) -> Figure:
        """The score by layer with its interval, the range of shuffled labels, and the controls.

        Several points of a layer become bars, heads a layer × head map of the score above the
        shuffled labels' mean.

        Args:
            others: the same sites of other models by name, ``{"random twin": result}``.

        Raises:
            ResultError: the others have other sites or another metric.
        """
        from interp.probing.picture import draw

        return draw(self, others or {}, title)

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all."""
        tensors = {n: v for n, v in vars(self).items() if isinstance(v, Tensor)}
        for name in ("weights", "biases"):
            tensors |= {f"{name}.{i}": v for i, v in enumerate(getattr(self, name))}
        meta = {name: getattr(self, name)
                for name in ("sites", "kind", "metric", "positions", "classes", "provenance")}  # fmt: skip
        return write_file(path, "ProbeResult", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> ProbeResult:
        """Read a saved result.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
        """
        tensors, found = read_file(path, "ProbeResult")
        meta: dict[str, Any] = dict(found)
        for name in ("weights", "biases"):
            meta[name] = tuple(tensors.pop(f"{name}.{i}") for i in range(len(meta["sites"])))
        meta["provenance"] = Provenance(**meta["provenance"])
        meta["sites"] = tuple(meta["sites"])
        meta["classes"] = None if meta["classes"] is None else tuple(meta["classes"])
        return cls(**{**meta, **tensors})
