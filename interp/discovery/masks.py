"""Learned masks: a gate on each edge, or on each node, trained to lose little of the model.

1. Each gate is a hard-concrete random number (:mod:`interp.discovery.gates`): 1 carries what the
   source writes, 0 its ablated value, and what lies between a mixture.
2. A step draws all gates, runs the model so, and moves log α along the gradient of

   - ``edge_pruning``: distance + λ₁ (s - t) + λ₂ (s - t)², with s the expected share of open gates
     and t the share asked for, which falls from 1 to its end over the first steps; λ ascends;
   - ``subnetwork_probing``: distance + penalty · s, with one gate for each node that writes.
3. At the end the gates are ranked, or cut at one half.

The distance is the mean divergence from the full model (``kl``, ``l2``), and for other metrics the mean
squared difference from its scores; both are divided by that of the empty circuit, so 0 is the full
model and 1 the empty one, whatever the unit.

Sources: Bhaskar et al. 2024, arXiv:2406.16778 (edge pruning); Cao et al. 2021, arXiv:2104.03514
(subnetwork probing), as adapted to nodes by Conmy et al. 2023, arXiv:2304.14997; Louizos et al.
2018, arXiv:1712.01312. Departures: the distance is divided by the empty circuit's; s is the expected
number of open gates, not that of the sample; edge pruning has no second gate on nodes, and starts
where gates are drawn and not all 1; every step sees all prompts; Adam without weight decay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.discovery.gates import open_chance, sampled, start_of, uniforms
from interp.discovery.losses import DIVERGENCES
from interp.discovery.mask_record import COLUMNS, Cut, MaskRecord, expand
from interp.discovery.patience import Patience
from interp.discovery.selection import n_edges
from interp.errors import GapError, MetricError, RunError, warn
from interp.graph.graph import Graph
from interp.patching.resume import same_sweep
from interp.progress import Bar
from interp.results import Provenance

__all__ = ["edge_pruning", "subnetwork_probing"]

_BETAS: Final = (0.9, 0.999)
_SMALLEST: Final = 1e-9  # distance of the empty circuit, below which there is nothing to divide by
_STEPS_OF_LOGITS: Final = ("rank", "accuracy", "diff_accuracy")


def edge_pruning(
    setting: Any,
    n: int | float,
    *,
    cut: Cut = "rank",
    steps: int = 300,
    lr: float = 0.1,
    warmup: float = 0.8,
    samples: int = 1,
    seed: int = 0,
    resume: MaskRecord | str | Path | None = None,
    progress: bool | None = None,
) -> MaskRecord:
    """Edges that lose little of the model together, ``n`` of them: ``edge_pruning(setting, 50).mask``.

    Args:
        setting: an :class:`interp.graph.setting.Setting`.
        n: a number of edges, or (a float) a share of all.
        cut: ``"rank"`` takes exactly n edges, by their gates; ``"threshold"`` those whose gate is
            above one half, about n of them.
        steps: of training.
        lr: of log α and of λ; with 0.8, theirs for thousands of steps, λ outruns a short training.
        warmup: share of the steps over which the number of edges falls from all to n.
        samples: draws of the gates in each step, run as variants of one batch.
        seed: of the draws.
        resume: the record (or its file) of this call, interrupted. Ctrl-C returns the gates as far
            as they were trained.
        progress: show a bar; None shows one for long work if a person can see it.

    Raises:
        RunError: an option out of its range.
        GapError: the empty circuit is as good as the full model.
        MetricError: a metric without a gradient.
        ResultError: ``resume`` is the record of another call.
    """
    if cut not in ("rank", "threshold"):
        raise RunError(f"cut={cut!r}; expected 'rank' or 'threshold'.")
    if not 0 <= warmup <= 1:
        raise RunError(f"warmup={warmup}; expected a share of the steps, from 0 to 1.")
    count = n_edges(setting.graph, n)
    total = len(setting.graph.edges)
    start = torch.full((total,), start_of(0.95), dtype=torch.float64)
    job = _Job(setting, "edge-pruning", start, count, cut, steps, lr, samples, seed,
               share=count / total, warmup=warmup)  # fmt: skip
    return _trained(job, resume, progress)


def subnetwork_probing(
    setting: Any,
    *,
    penalty: float = 0.5,
    n: int | float | None = None,
    steps: int = 300,
    lr: float = 0.1,
    samples: int = 1,
    seed: int = 0,
    resume: MaskRecord | str | Path | None = None,
    progress: bool | None = None,
) -> MaskRecord:
    """Nodes that lose little of the model together, as the edges among them that reach the logits.

    Args:
        penalty: what the share of open nodes costs, where the empty circuit's distance is 1.
        n: None keeps the nodes whose gate is above one half. A number of edges (or a share of
            all) takes whole nodes by their gates, as long as there are no more edges than that.
        setting, steps, lr, samples, seed, resume, progress: as in :func:`edge_pruning`.

    Raises:
        As :func:`edge_pruning`.
    """
    if not penalty >= 0:
        raise RunError(f"penalty={penalty!r}; expected 0 or more; 0.5 is usual.")
    count = None if n is None else n_edges(setting.graph, n)
    start = torch.full((len(setting.graph.sources),), start_of(0.9), dtype=torch.float64)
    cut: Cut = "threshold" if n is None else "rank"
    job = _Job(setting, "subnetwork-probing", start, count, cut, steps, lr, samples, seed,
               penalty=penalty)  # fmt: skip
    return _trained(job, resume, progress)


@dataclass(eq=False)
class _Job:
    """A training: what was asked for, and where it is."""

    setting: Any
    method: Literal["edge-pruning", "subnetwork-probing"]
    log_alpha: Float[Tensor, " gate"]
    n: int | None
    cut: Cut
    steps: int
    lr: float
    samples: int
    seed: int
    share: float | None = None
    warmup: float = 0.0
    penalty: float | None = None
    lagrange: Float[Tensor, "2"] = field(init=False)
    moments: Float[Tensor, "2 parameter"] = field(init=False)
    rows: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for word, value in (("steps", self.steps), ("samples", self.samples)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RunError(f"{word}={value!r}; expected a positive whole number.")
        if not self.lr > 0:
            raise RunError(f"lr={self.lr!r}; expected a learning rate above 0.")
        if self.setting.metric.name in _STEPS_OF_LOGITS:
            raise MetricError(
                f"metric {self.setting.metric.name!r} jumps as logits pass each other: it has no "
                "gradient to train gates by. Use 'kl', 'logit_diff' or another smooth metric."
            )
        self.lagrange = torch.zeros(2, dtype=torch.float64)
        self.moments = torch.zeros(2, len(self.log_alpha) + 2, dtype=torch.float64)
        self.scale = self._distance(self.setting.empty.double()[None])
        if not float(self.scale) > _SMALLEST:
            raise GapError(
                "the metric is the same with every edge ablated as with none, so any gates would "
                "do: check that the corruption or the ablation changes the answer."
            )

    def _distance(self, scores: Float[Tensor, "sample prompt"]) -> Float[Tensor, ""]:
        off = scores.double() - self.setting.full.double()
        return (off if self.setting.metric.name in DIVERGENCES else off.square()).mean()

    def step(self) -> None:
        """Draw, run, and move every parameter once."""
        number = len(self.rows)
        alpha, lagrange = (p.clone().requires_grad_() for p in (self.log_alpha, self.lagrange))
        noise = uniforms(self.samples, len(alpha), seed=self.seed, step=number)
        kept = expand(self.setting.graph, self.method, sampled(alpha, noise))
        distance = self._distance(self.setting.scores(kept, grad=True)) / self.scale
        share, target = open_chance(alpha).mean(), self._target(number)
        over = share - target
        cost = lagrange[0] * over + lagrange[1] * over**2
        loss = distance + (cost if self.penalty is None else self.penalty * share)
        if not bool(loss.isfinite()):
            raise RunError(
                f"the distance is {float(distance)} at step {number}: lower lr={self.lr}."
            )
        down, up = torch.autograd.grad(loss, (alpha, lagrange), materialize_grads=True)
        self._move(torch.cat([down, -up]), number)
        self.rows.append([float(distance.detach()), float(share.detach()), target])

    def _target(self, number: int) -> float:
        if self.share is None:
            return torch.nan
        ramp = self.warmup * self.steps
        done = min(1.0, (number + 1) / ramp) if ramp else 1.0
        return 1 - (1 - self.share) * done

    def _move(self, gradient: Float[Tensor, " parameter"], number: int) -> None:
        """Adam (Kingma & Ba 2015)."""
        first, second = (
            beta * old + (1 - beta) * new
            for beta, old, new in zip(
                _BETAS, self.moments, (gradient, gradient.square()), strict=True
            )
        )
        self.moments = torch.stack([first, second])
        first = first / (1 - _BETAS[0] ** (number + 1))
        second = second / (1 - _BETAS[1] ** (number + 1))
        moved = self.lr * first / (second.sqrt() + 1e-8)
        n = len(self.log_alpha)
        self.log_alpha = self.log_alpha - moved[:n]
        self.lagrange = self.lagrange - moved[n:]

    def go_on(self, old: MaskRecord) -> None:
        """Take over the state of an interrupted training."""
        self.log_alpha, self.lagrange = old.log_alpha.clone(), old.lagrange.clone()
        self.moments, self.rows = old.moments.clone(), old.values.tolist()

    def provenance(self) -> Provenance:
        setting = self.setting
        return Provenance.of(
            setting.model, setting.prompts, seed=self.seed, verb=self.method,
            metric=setting.metric.name, ablation=setting.ablation, direction=setting.direction,
            shape=setting.graph.shape, n=self.n, cut=self.cut, steps=self.steps, lr=self.lr,
            samples=self.samples, warmup=self.warmup, penalty=self.penalty,
        )  # fmt: skip

    def record(self) -> MaskRecord:
        setting, graph = self.setting, self.setting.graph
        return MaskRecord(
            method=self.method, n=self.n, cut=self.cut, steps=self.steps,
            log_alpha=self.log_alpha, lagrange=self.lagrange, moments=self.moments,
            values=torch.tensor(self.rows, dtype=torch.float64).view(-1, len(COLUMNS)),
            full=setting.full.detach().cpu(), empty=setting.empty.detach().cpu(),
            metric=setting.metric.name, unit=setting.metric.unit, ablation=setting.ablation,
            shape=graph.shape, provenance=self.provenance(),
        )  # fmt: skip


def _trained(
    job: _Job, resume: MaskRecord | str | Path | None, progress: bool | None
) -> MaskRecord:
    setting = job.setting
    if resume is not None:
        old = resume if isinstance(resume, MaskRecord) else MaskRecord.load(resume)
        ends = {"full": (setting.full.cpu(), old.full), "empty": (setting.empty.cpu(), old.empty)}
        same_sweep(job.provenance(), old.provenance, (), (), ends)
        job.go_on(old)
    begun, graph = len(job.rows), setting.graph
    assert isinstance(graph, Graph)
    patience = Patience(f"{job.method}, {job.steps - begun} steps", quiet=progress is False)
    try:
        with Bar(total=job.steps, what=job.method, show=progress) as bar:
            bar.advance(begun)
            while len(job.rows) < job.steps:
                job.step()
                patience.spent(len(job.rows) - begun, job.steps - len(job.rows))
                bar.advance()
    except KeyboardInterrupt:
        warn(
            f"interrupted after {len(job.rows)} of {job.steps} steps: the gates are as far as they "
            "were trained. With resume= this record the training goes on."
        )
    return job.record()
