"""What causal tracing found: the metric under every restoration, and both baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import ResultError
from interp.intervals import Interval, bootstrap
from interp.results import Axis, Provenance, Stored, cell_labels, pick
from interp.tracing.roles import ROLES, mean_by_role, roles

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["TraceResult"]


@dataclass(frozen=True, eq=False, repr=False)
class TraceResult(Stored):
    """The metric of the corrupted run with one thing restored, for each thing.

    Attributes:
        per_sample: the metric with each restoration, for each prompt and each draw of the noise.
            NaN where a prompt has no such token, and in cells that were not finished.
        axes: ``kind`` (states, mlp, attn, severed states), ``layer``, ``position``.
        clean: the metric of each clean prompt.
        corrupted: of each prompt with noise on its subject, for each draw.
        done: which cells were finished.
        subject: first and last position of each subject, among real tokens.
        n_real: tokens of each prompt.
        std: the noise's standard deviation, in the unit of the embeddings.
        noise: the same as a multiple of the spread of subject embeddings; None if ``std`` was given.
        window: layers restored together in the ``mlp`` and ``attn`` panels.
        metric, unit: what was measured.
        answers: the tokens whose prediction was traced.
        tokens: each prompt's tokens as text; None without a tokenizer.
        engine, work: how it was computed, as in :class:`interp.PatchResult`.
        provenance: model, prompts, seed, versions and the call.
    """

    per_sample: Float[Tensor, "*axes prompt sample"]
    axes: tuple[Axis, ...]
    clean: Float[Tensor, " prompt"]
    corrupted: Float[Tensor, "prompt sample"]
    done: Bool[Tensor, "*axes"]
    subject: Int[Tensor, "prompt 2"]
    n_real: Int[Tensor, " prompt"]
    std: float
    noise: float | None
    window: int
    metric: str
    unit: str
    answers: tuple[str, ...] | None
    tokens: tuple[tuple[str, ...], ...] | None
    engine: str
    work: dict[str, int]
    provenance: Provenance

    def __repr__(self) -> str:
        axes = " × ".join(f"{axis.name} {len(axis)}" for axis in self.axes)
        finished, cells = int(self.done.sum()), self.done.numel()
        part = "" if finished == cells else f"; {finished} of {cells} cells finished"
        return (
            f"TraceResult({axes}{part}; {self.metric} in {self.unit}: clean {self.clean.mean():.3g}, "
            f"corrupted {self.corrupted.mean():.3g}; {len(self.clean)} prompts × "
            f"{self.corrupted.shape[-1]} draws of noise, {self.engine} engine)"
        )

    @property
    def per_prompt(self) -> Float[Tensor, "*axes prompt"]:
        """The metric's mean over draws of the noise: P(answer) as in the paper."""
        return self.per_sample.mean(-1)

    @property
    def values(self) -> Float[Tensor, "*axes"]:
        """The mean over the prompts that have such a token, in ``unit``."""
        return self.per_prompt.nanmean(-1)

    @property
    def total_effect(self) -> float:
        """Clean less corrupted, mean over prompts (TE)."""
        return float(self.clean.mean() - self.corrupted.mean())

    def indirect_effect(self) -> Float[Tensor, "*axes"]:
        """Restored less corrupted, mean over prompts (the paper's average indirect effect, AIE).

        0: nothing came back; ``total_effect``: all of it. Not clipped.
        """
        return self._effects().nanmean(-1)

    def fraction_restored(
        self, kind: str = "states", *, role: str | None = None, min_gap: float = 1e-6
    ) -> Float[Tensor, "layer prompt"]:
        """Share of the damage that restoring each layer undoes, for each prompt.

        ``max(0, (restored - corrupted) / |clean - corrupted|)``: Hase et al. 2023
        (arXiv:2301.04213). NaN where the noise does no damage (less than ``min_gap``).

        Args:
            kind: a label of the axis ``kind``.
            role: one of the roles of :meth:`by_role`, such as ``"last subject token"``; None: the
                token where the share is largest.
        """
        own = self.select(kind=kind)
        if role is not None:
            own = own.by_role().select(position=role)
        gap = (self.clean - self.corrupted.mean(-1)).abs()
        share = own._effects() / gap.masked_fill(gap < min_gap, torch.nan)
        share = share[:, None] if role is not None else share
        none = share.isnan().all(1)
        best = share.nan_to_num(nan=-torch.inf).amax(1).clamp(min=0)
        return best.masked_fill(none, torch.nan)

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Bootstrap interval over prompts of the indirect effect; NaN where not every prompt has
        such a token (see :meth:`by_role`)."""
        return bootstrap(self._effects(), level=level, seed=seed)

    def by_role(self) -> TraceResult:
        """The positions of all prompts under six common names, as in the paper's figure 2.

        A role's value in a prompt is the mean over its tokens there; each prompt counts once
        (the paper's code pools tokens, so that a long subject counts more in the middle).
        """
        if self._has_roles():
            return self
        members = roles(self.subject, self.n_real, len(self._axis("position")))
        place = [axis.name for axis in self.axes].index("position")
        values = mean_by_role(self._five(self.per_sample), members)
        done = self.done.all(place, keepdim=True).expand(
            *[len(ROLES) if i == place else n for i, n in enumerate(self.done.shape)]
        )
        axes = tuple(Axis("position", ROLES) if a.name == "position" else a for a in self.axes)
        return replace(
            self, per_sample=values.reshape(*(len(a) for a in axes), *values.shape[-2:]),
            axes=axes, done=done.clone(),
        )  # fmt: skip

    def select(self, **labels: int | str) -> TraceResult:
        """The result at one label of some axes: ``result.select(kind="mlp")``."""
        index, axes = pick(self.axes, labels)
        return replace(self, per_sample=self.per_sample[index], done=self.done[index], axes=axes)

    def top(self, n: int = 10) -> DataFrame:
        """The ``n`` restorations with the largest indirect effect."""
        frame = self.to_frame().dropna(subset=["effect"])
        frame = frame.sort_values("effect", ascending=False, kind="stable")
        return frame.head(n).reset_index(drop=True)

    def to_frame(self) -> DataFrame:
        """One row for each cell: its labels, ``value``, ``effect``, ``low``, ``high``, ``prompts``.

        ``effect`` is the indirect effect, ``low`` and ``high`` its 95% bootstrap interval over
        prompts (NaN where some prompt lacks the token), ``prompts`` how many have it.
        """
        import pandas as pd

        columns: dict[str, Any] = dict(cell_labels(self.axes))
        interval = self.interval()
        columns["value"] = self.values.flatten().tolist()
        columns["effect"] = self.indirect_effect().flatten().tolist()
        columns["low"], columns["high"] = (
            bound.flatten().tolist() for bound in (interval.low, interval.high)
        )
        columns["prompts"] = (~self.per_prompt.isnan()).sum(-1).flatten().tolist()
        return pd.DataFrame(columns)

    def plot(self, *, title: str | None = None) -> Figure:
        """A panel for each kind: tokens downwards, layers across, the indirect effect as colour.

        Several prompts are shown by role; of one prompt the subject's tokens carry a ``*``.

        Raises:
            ResultError: the axes layer and position are not both there.
        """
        from interp.figures import tracing

        shown = self if len(self.clean) == 1 else self.by_role()
        names = [axis.name for axis in self.axes]
        if names[-2:] != ["layer", "position"]:
            raise ResultError("a tracing figure needs the axes layer and position: select less.")
        kinds = shown._axis("kind") if "kind" in names else ("restored",)
        effects = shown.indirect_effect().reshape(len(kinds), *shown.done.shape[-2:])
        labels = shown._position_labels()
        there = [i for i in range(len(labels)) if not bool(effects[..., i].isnan().all())]
        return tracing(
            effects[..., there],
            panels=[self._heading(kind) for kind in kinds],
            layers=shown._axis("layer"),
            positions=[labels[i] for i in there],
            title=title or self._title(),
            unit=f"indirect effect on {self.metric} ({self.unit})",
        )

    def _position_labels(self) -> list[str]:
        """Roles without "tokens"; of one prompt its tokens, the subject's with a star."""
        labels = self._axis("position")
        if self._has_roles():
            return [label.replace(" tokens", "").replace(" token", "") for label in labels]
        first, last = self.subject[0].tolist()
        return [f"{label}*" if first <= i <= last else label for i, label in enumerate(labels)]

    def _heading(self, kind: str) -> str:
        if kind not in ("mlp", "attn"):
            return kind if kind != "states" else "one state"
        return f"{kind}, window of {self.window}" if self.window > 1 else f"one {kind} output"

    def _title(self) -> str:
        whose = self.answers[0] if self.answers and len(self.clean) == 1 else "answer"
        return (
            f"Restored after noise on the subject: P({whose.strip()})" if self.metric == "prob"
            else f"Restored after noise on the subject: {self.metric}"
        ) + f", clean {self.clean.mean():.2f}, corrupted {self.corrupted.mean():.2f}"  # fmt: skip

    def _effects(self) -> Float[Tensor, "*axes prompt"]:
        return self.per_prompt - self.corrupted.mean(-1)

    def _axis(self, name: str) -> tuple[str, ...]:
        found = [axis.labels for axis in self.axes if axis.name == name]
        if not found:
            raise ResultError(f"this result has no axis {name!r} left.")
        return found[0]

    def _has_roles(self) -> bool:
        return self._axis("position") == ROLES

    def _five(self, x: Tensor) -> Float[Tensor, "kind layer position prompt sample"]:
        """With axes of one step where some were selected away."""
        have = [axis.name for axis in self.axes]
        sizes = [len(self._axis(n)) if n in have else 1 for n in ("kind", "layer", "position")]
        return x.reshape(*sizes, *x.shape[-2:])
