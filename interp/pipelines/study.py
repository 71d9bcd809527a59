"""One behaviour, end to end: is it there, who does what, which edges carry it, how sure is that?

1. Prompts are drawn and split: everything is found on one half and evaluated on the other.
2. The model and its untrained twin are scored. Where the model does not show the behaviour, there is nothing to
   explain: roles are asked all the same (none is expected), and no circuit is looked for.
3. Nodes of both are measured; roles are what the model's do and the twin's do not.
4. The circuit is found, and found again on other draws of the prompts; so is the twin's, of as many edges.
5. The first is evaluated on the held-out half, beside random circuits of its size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp import metrics
from interp.attribution.edges.verb import EDGE_METHODS
from interp.circuits.circuit import Circuit
from interp.errors import RunError, nearest
from interp.graph import Graph, Setting
from interp.intervals import bootstrap
from interp.models.model import Model
from interp.pipelines.finding import Finding
from interp.pipelines.found import circuit_of, edge_scores, shortest
from interp.pipelines.measured import Task
from interp.pipelines.roles import Roles, assign
from interp.progress import Bar, announce
from interp.prompts.prompts import Prompts
from interp.results import Provenance

__all__ = ["Options", "Study"]

#: The least share of clean prompts that must score above 0 (chance: a half).
KNOWN: Final = 0.8
#: Draws for which the twin's circuit is found.
_TWIN_DRAWS: Final = 2


@dataclass(frozen=True)
class Options:
    """How a pipeline goes about it; see :func:`interp.pipelines.ioi`."""

    seeds: int = 5
    faithful: float = 0.95
    method: str = "screened"
    signed: bool = True
    twin: Model | None = None
    evaluation: Mapping[str, Any] | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        seeds, share = self.seeds, self.faithful
        if self.method not in (known := ("screened", *EDGE_METHODS)):
            raise RunError(
                f"method={self.method!r}; expected one of {', '.join(known)}; "
                f"nearest: {nearest(str(self.method), known)}."
            )
        if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
            raise RunError(
                f"seeds={seeds!r}; expected a number of draws of the prompts, such as 5."
            )
        if not 0 < share <= 1:
            raise RunError(
                f"faithful={share!r}; expected a share of the metric to keep, such as 0.95."
            )


class Study:
    """One pipeline under way.

    Args:
        draw: the prompts of draw 0, 1, ...; the first are split into discovery and evaluation.
        call: the verb and its arguments, for the record.
    """

    def __init__(
        self, model: Model, task: Task, draw: Callable[[int], Prompts], options: Options,
        call: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._model, self._task, self._draw, self._options = model, task, draw, options
        self._call = {**call, "seeds": options.seeds, "faithful": options.faithful, "method": options.method,
                      "signed": options.signed}  # fmt: skip
        self._twin = options.twin or model.random_twin(1)
        first = draw(0)
        self._found_on, self._held_out = first.split(0.5, seed=0)

    def run(self) -> Finding:
        """Everything, in order."""
        self._say()
        steps_in_all = self._options.seeds + self._twin_draws + 2
        with Bar(
            total=steps_in_all, what=self._task.name, show=self._options.progress, least=1
        ) as bar:
            numbers = self._behaviour()
            roles, steps = self._roles()
            bar.advance(1, what=f"{self._task.name}: circuit")
            if not self._shown:
                note = (
                    f"{self._model.name} does not show {self._task.name}: no circuit was looked for"
                )
                return Finding(**numbers, roles=roles, circuit=None, evaluation=None, steps=steps,
                               notes=(note,))  # fmt: skip
            circuit, n = self._circuit(roles)
            bar.advance(1, what=f"{self._task.name}: other draws")
            others = self._again(self._model, n, range(1, self._options.seeds), bar)
            control = self._again(self._twin, n, range(self._twin_draws), bar)
            bar.advance(0, what=f"{self._task.name}: evaluation")
            evaluation = circuit.evaluate(
                self._model, self._held_out, show=False, **(self._options.evaluation or {})
            )
            bar.advance(1)
        whole = evaluation.faithfulness_interval()
        measured = {
            "faithfulness": float(whole.mean), "low": float(whole.low), "high": float(whole.high),
            "prompts": self._held_out.hash,
        }  # fmt: skip
        return Finding(
            **numbers, roles=roles, circuit=replace(circuit, measured=measured),
            evaluation=evaluation, draws=others, twin_draws=control, steps=steps,
        )  # fmt: skip

    @property
    def _twin_draws(self) -> int:
        """How often the twin's circuit is found; where the model's is found once, not at all."""
        return _TWIN_DRAWS if self._options.seeds > 1 else 0

    # -- is it there? ----------------------------------------------------------------------

    def _behaviour(self) -> dict[str, Any]:
        """Scores of the model and its twin on the held-out half."""
        own, theirs = (self._scores(who, self._held_out) for who in (self._model, self._twin))
        return {
            "task": self._task.name, "metric": self._task.metric,
            "unit": metrics.METRICS[self._task.metric].unit, **_told(own), "twin": _told(theirs),
        }  # fmt: skip

    def _scores(self, who: Model, pairs: Prompts) -> Float[Tensor, "side prompt"]:
        assert pairs.corrupted is not None  # tasks come in pairs
        return torch.stack([
            metrics.evaluate(self._task.metric, who.run(side).logits.cpu(), pairs)
            for side in (pairs.clean, pairs.corrupted)
        ])  # fmt: skip

    @property
    def _shown(self) -> bool:
        """Whether the model is right about the clean prompts, and differs on the corrupted ones."""
        clean, corrupted = self._scores(self._model, self._found_on)
        low = bootstrap(clean - corrupted, level=0.99).low
        return float((clean > 0).float().mean()) >= KNOWN and float(low) > 0

    # -- who does what? --------------------------------------------------------------------

    def _roles(self) -> tuple[Roles, dict[str, Any]]:
        own, theirs = (self._task.measure(who, self._found_on) for who in (self._model, self._twin))
        clean, corrupted = self._scores(self._model, self._found_on)
        gap = float((clean - corrupted).mean())
        roles = assign(
            self._task.kinds(abs(gap)), own.behaviours, theirs.behaviours,
            Provenance.of(self._model, self._found_on, **self._call, twin=self._twin.name),
        )  # fmt: skip
        return roles, {**own.steps, **{f"twin_{k}": v for k, v in theirs.steps.items()}}

    # -- which edges? ----------------------------------------------------------------------

    def _circuit(self, roles: Roles) -> tuple[Circuit, int]:
        scores = self._edge_scores(self._model, self._found_on)
        n, _ = shortest(
            self._model, self._found_on, scores, faithful=self._options.faithful,
            signed=self._options.signed,
        )  # fmt: skip
        circuit = self._of(self._model, self._found_on, scores, n)
        held = {node: own for node, own in roles.by_node().items() if node in circuit.nodes}
        return circuit.with_roles(held), n

    def _again(self, who: Model, n: int, draws: range, bar: Bar) -> tuple[Circuit, ...]:
        """The circuits of as many edges on other draws."""
        found = []
        for i in draws:
            pairs = self._draw(i).split(0.5, seed=0)[0] if i else self._found_on
            found.append(self._of(who, pairs, self._edge_scores(who, pairs), n))
            bar.advance(1)
        return tuple(found)

    def _edge_scores(self, who: Model, pairs: Prompts) -> Any:
        return edge_scores(
            who, pairs, self._task.metric, method=self._options.method, progress=False
        )

    def _of(self, who: Model, pairs: Prompts, scores: Any, n: int) -> Circuit:
        return circuit_of(
            who, pairs, scores, n, signed=self._options.signed, name=self._task.name,
            call=self._call,
        )  # fmt: skip

    # -- how long? -------------------------------------------------------------------------

    def _say(self) -> None:
        """What it will take, by the clock on a run and a few edges."""
        if self._options.progress is False:
            return
        pairs, seeds = self._found_on, self._options.seeds
        setting = Setting.of(self._model, pairs, metric=self._task.metric, ablation="resample")
        start = time.perf_counter()
        self._model.run(pairs, logits="last")
        one_run = time.perf_counter() - start
        per_edge = _seconds(setting)
        edges = len(setting.graph.edges)
        total = 2 * self._task.runs(self._model) * one_run
        share = {"exact": 1.0, "screened": _SUSPECTED}.get(self._options.method, 0.0)
        draws = seeds + self._twin_draws
        total += per_edge * share * edges * draws
        total += per_edge * _EVALUATED
        announce(
            f"{self._task.name} in {self._model.name!r} and its untrained twin: {len(pairs)} prompts to "
            f"find on, {len(self._held_out)} to evaluate on, {edges:,} edges × {draws} "
            f"draws, about {max(1, round(total))} s"
        )


#: The share of edges that is left after screening, with the screening itself, about.
_SUSPECTED: Final = 0.6
#: Runs of an evaluation, about.
_EVALUATED: Final = 400
_SAMPLE: Final = 24


def _seconds(setting: Setting) -> float:
    """What ablating one edge takes, by the clock on a few all over the graph."""
    graph: Graph = setting.graph
    every = graph.edges[:: max(1, len(graph.edges) // _SAMPLE)]
    kept = torch.stack([graph.full & ~graph.mask([edge]) for edge in every])
    start = time.perf_counter()
    setting.scores(kept)
    return (time.perf_counter() - start) / len(every)


def _told(scores: Float[Tensor, "side prompt"]) -> dict[str, float]:
    clean, corrupted = scores
    return {
        "clean": float(clean.mean()), "corrupted": float(corrupted.mean()),
        "right": float((clean > 0).float().mean()),
    }  # fmt: skip
