"""ACDC: remove one edge after another, from the logits backwards, and keep those that matter.

1. Start with every edge. Take the destinations from the logits backwards, and at each its sources
   from the latest to the earliest.
2. Ablate the edge in the circuit as it stands. If the metric changes by less than τ against that
   circuit, the edge is gone for good; else it stays.
3. An edge whose destination no kept path joins to the logits any more is gone without a run:
   nothing reads what it carries.

Most edges go. So the removal of the next k edges, one upon another, is run as k variants in one
batch, as if each would succeed; those before the first failure are accepted, the failing edge is
kept, and the rest of the batch is thrown away. k doubles while all succeed and halves on a failure.
The circuit is the one that single steps find, in about two rounds for each edge that stays.

Source: Conmy et al. 2023, arXiv:2304.14997, algorithm 1 and its code. The rule of both: an edge
goes if ``new - current < tau`` of a divergence or loss. Departures: for metrics that are no loss the
change is taken without its sign, unless ``signed``; the metric is a mean over prompts, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.discovery.acdc_record import AcdcRecord
from interp.discovery.connection import reads_of, spreads, wide
from interp.discovery.losses import LOSSES, harm_sign
from interp.discovery.patience import Patience
from interp.errors import RunError, warn
from interp.graph.graph import Graph
from interp.patching.resume import same_sweep
from interp.progress import Bar
from interp.results import Provenance

__all__ = ["Order", "acdc", "removal_order"]

Order = Literal["latest", "earliest", "random"]
#: Variants of a batch, unless asked for more: a CPU runs few at once, and wasted ones cost full price.
_LARGEST: Final = 64
_ON_A_CPU: Final = 4


def acdc(
    setting: Any,
    *,
    tau: float = 0.01,
    signed: bool | None = None,
    order: Order = "latest",
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    resume: AcdcRecord | str | Path | None = None,
    progress: bool | None = None,
) -> AcdcRecord:
    """The edges that a setting's metric needs: ``acdc(setting).mask``.

    Args:
        setting: an :class:`interp.graph.setting.Setting`.
        tau: an edge is kept if its removal changes the metric's mean over prompts by at least
            this much, in the metric's unit.
        signed: whether only a change for the worse counts: up for ``kl``, ``l2``, ``nll`` and
            ``rank``, down for others. None: signed for those four, as published, and the size of
            the change for all others.
        order: of the sources at each destination: from the ``"latest"`` to the ``"earliest"``,
            the other way round, or ``"random"``. What is found can depend on it.
        seed: of ``order="random"``.
        batch: most variants of one batch; 1 goes edge by edge. What is found does not depend on
            it (but for rounding: a change that misses τ by less than that may fall either way).
        resume: the record (or its file) of this call, interrupted. Ctrl-C returns what is decided;
            the edges that were not tried are still in the circuit.
        progress: show a bar; None shows one for long work if a person can see it.

    Raises:
        RunError: an option out of its range.
        ResultError: ``resume`` is the record of another call.
    """
    signed = _checked(tau, signed, order, batch, setting.metric.name)
    graph: Graph = setting.graph
    numbers = removal_order(graph, order, seed)
    call = {
        "verb": "acdc", "metric": setting.metric.name, "ablation": setting.ablation, "tau": tau,
        "signed": signed, "order": order, "direction": setting.direction, "shape": graph.shape,
    }  # fmt: skip
    provenance = Provenance.of(
        setting.model, setting.prompts, seed=seed if order == "random" else None, **call
    )
    search = _Search(setting, numbers, tau, signed)
    if resume is not None:
        old = resume if isinstance(resume, AcdcRecord) else AcdcRecord.load(resume)
        ends = {"full": (setting.full.cpu(), old.full), "empty": (setting.empty.cpu(), old.empty)}
        same_sweep(provenance, old.provenance, (), (), ends)
        search.go_on(old)
    try:
        search.run(_at_once(setting) if batch == "auto" else batch, progress)
    except KeyboardInterrupt:
        warn(
            f"interrupted: {search.at} of {len(numbers)} edges are decided, the others are still in "
            "the circuit. With resume= this record the search goes on."
        )
    return search.record(provenance)


def removal_order(graph: Graph, order: Order = "latest", seed: int = 0) -> Int[Tensor, " edge"]:
    """Numbers of ``graph.edges`` in the order in which ACDC tries them.

    Always from the logits backwards: an edge comes after all that its destination's node writes to.
    """
    backwards = torch.arange(len(graph.edges)).flip(0)
    if order == "latest":
        return backwards
    dests = graph.index[1][backwards]
    if order == "earliest":
        return backwards.flip(0)[dests.flip(0).argsort(descending=True, stable=True)]
    generator = torch.Generator().manual_seed(seed)
    shuffled = backwards[torch.randperm(len(backwards), generator=generator)]
    return shuffled[graph.index[1][shuffled].argsort(descending=True, stable=True)]


def _at_once(setting: Any) -> int:
    """How far to speculate."""
    device = getattr(getattr(setting, "model", None), "device", None)
    if device is not None and device.type == "cpu":
        return _ON_A_CPU
    return min(_LARGEST, getattr(setting, "variants_at_once", _LARGEST))


def _checked(tau: float, signed: bool | None, order: str, batch: Any, metric: str) -> bool:
    if not (isinstance(tau, int | float) and tau >= 0):
        raise RunError(f"tau={tau!r}; expected a change of the metric, 0 or more, such as 0.01.")
    if order not in ("latest", "earliest", "random"):
        raise RunError(f"order={order!r}; expected 'latest', 'earliest' or 'random'.")
    if batch != "auto" and not (isinstance(batch, int) and batch >= 1):
        raise RunError(f"batch={batch!r}; expected a positive number of variants, or 'auto'.")
    return metric in LOSSES if signed is None else signed


@dataclass(frozen=True)
class _Step:
    """One edge that is tried next, and the run of it; None: it is gone without one."""

    at: int
    run: int | None


@dataclass(eq=False)
class _Search:
    """What is decided so far."""

    setting: Any
    order: Int[Tensor, " edge"]
    tau: float
    signed: bool
    at: int = 0
    runs: int = 0
    rounds: int = 0
    kept: Bool[Tensor, "source dest place"] = field(init=False)
    current: float = field(init=False)

    def __post_init__(self) -> None:
        graph: Graph = self.setting.graph
        n = len(self.order)
        self.kept = wide(graph.full.clone())
        self.current = float(self.setting.full.double().mean())
        self.change = torch.full((n,), torch.nan, dtype=torch.float64)
        self.along = torch.full((n,), torch.nan, dtype=torch.float64)
        self.was_run = torch.zeros(n, dtype=torch.bool)
        self.stays = torch.ones(n, dtype=torch.bool)
        axes = [axis[self.order].tolist() for axis in graph.index]
        self.places = list(zip(*(axes if len(axes) == 3 else (*axes, [0] * n)), strict=True))
        number = {name: i for i, name in enumerate(graph.sources)}
        own = {dest: source for source, dests in enumerate(reads_of(graph)) for dest in dests}
        self.node = [own.get(d, number.get(dest)) for d, dest in enumerate(graph.dests)]
        self.spread = [spreads(dest) for dest in graph.dests]
        self.read = torch.zeros(self.kept.shape[1:], dtype=torch.bool)

    def go_on(self, old: AcdcRecord) -> None:
        """Take over what a record has decided."""
        self.at = int(old.done.sum())
        self.runs, self.rounds = old.runs, old.rounds
        self.change, self.along = old.change.clone(), old.along.clone()
        self.was_run, self.stays = old.run.clone(), old.kept.clone()
        self.kept = wide(old.mask.clone())
        if self.at:
            self.current = float(self.along[self.at - 1])

    def run(self, largest: int, progress: bool | None) -> None:
        n, k, begun = len(self.order), 1, self.at
        patience = Patience(f"ACDC, {n - begun:,} edges to try", quiet=progress is False)
        with Bar(total=n, what=f"ACDC, {n:,} edges", show=progress) as bar:
            bar.advance(begun)
            while self.at < n:
                before = self.at
                k = self._round(k, largest)
                patience.spent(self.at - begun, n - self.at)
                bar.advance(self.at - before, what=f"ACDC, {int(self.stays[: self.at].sum())} kept")

    def _round(self, k: int, largest: int) -> int:
        """Try up to ``k`` removals in one batch; how many to try next."""
        steps, masks = self._plan(k)
        scores = torch.zeros(0)
        if masks:
            stacked = torch.stack(masks)
            stacked = stacked if self.setting.graph.positions else stacked[..., 0]
            scores = self.setting.scores(stacked).double().mean(-1).cpu()
            self.runs, self.rounds = self.runs + len(masks), self.rounds + 1
        failed = self._accept(steps, scores)
        return max(1, k // 2) if failed else min(2 * k, largest)

    def _plan(self, k: int) -> tuple[list[_Step], list[Tensor]]:
        """The next edges, as if none of them stayed, and the masks of at most ``k`` runs."""
        trial = self.kept.clone()
        steps: list[_Step] = []
        masks: list[Tensor] = []
        seen = -1
        for at in range(self.at, len(self.order)):
            source, dest, place = self.places[at]
            if dest != seen:
                self._see(trial, dest)
                seen = dest
            live = bool(self.read[dest, place])
            if live and len(masks) == k:
                break
            trial[source, dest, place] = False
            steps.append(_Step(at, len(masks) if live else None))
            masks += [trial.clone()] if live else []
        return steps, masks

    def _see(self, trial: Tensor, dest: int) -> None:
        """At which positions what this destination reads can reach the logits.

        Edges from its node come before it in the order, so ``read`` is up to date for those.
        """
        node = self.node[dest]
        if node is None:
            self.read[dest] = True  # the logits
            return
        written = (trial[node] & self.read).any(0)
        self.read[dest] = written.any() if self.spread[dest] else written

    def _accept(self, steps: list[_Step], scores: Float[Tensor, " run"]) -> bool:
        """Take the steps up to the first edge that has to stay; whether there was one."""
        for step in steps:
            place = self.places[step.at]
            new = self.current if step.run is None else float(scores[step.run])
            change = new - self.current
            stays = step.run is not None and not self._small(change)
            self.change[step.at], self.was_run[step.at] = change, step.run is not None
            self.stays[step.at], self.kept[place] = stays, stays
            self.current = self.current if stays else new
            self.along[step.at] = self.current
            self.at = step.at + 1
            if stays:
                return True
        return False

    def _small(self, change: float) -> bool:
        """Whether an edge may go; a change that is no number keeps it."""
        harm = change * harm_sign(self.setting.metric.name) if self.signed else abs(change)
        return harm < self.tau

    def record(self, provenance: Provenance) -> AcdcRecord:
        setting, graph = self.setting, self.setting.graph
        done = torch.arange(len(self.order)) < self.at
        return AcdcRecord(
            edges=tuple(graph.edges[i] for i in self.order.tolist()),
            change=self.change, along=self.along, kept=self.stays, run=self.was_run, done=done,
            full=setting.full.detach().cpu(), empty=setting.empty.detach().cpu(),
            tau=float(self.tau), signed=self.signed, rounds=self.rounds, runs=self.runs,
            metric=setting.metric.name, unit=setting.metric.unit, ablation=setting.ablation,
            shape=graph.shape, provenance=provenance,
        )  # fmt: skip
