"""The tour behind ``interp demo``: what one model can do, which heads look back, where a fact is.

The same code runs on any model with the demo's tasks: the shipped one, one trained
from another seed, or an untrained twin. It knows no layer, head or template: it
measures, compares with the twin, and a finding is only what the measurements bear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from interp import metrics, prompts
from interp.discovery.heads import HeadScores, head_scores
from interp.lenses.logit_lens import LensResult, lens
from interp.models.model import Model
from interp.patching.result import PatchResult
from interp.patching.verb import patch
from interp.progress import track
from interp.prompts.prompts import Prompts
from interp.tracing.result import TraceResult
from interp.tracing.roles import ROLES
from interp.tracing.verb import trace

__all__ = ["Task", "Tour", "take_tour"]

#: A task is known if at least this share of its prompts gets the right top token.
KNOWN = 0.5
#: Facts that are traced.
TRACED = 24


@dataclass(frozen=True)
class Task:
    """How well a model does one task, with a 95% interval over prompts, and its twin."""

    name: str
    metric: str
    value: float
    low: float
    high: float
    control: float


@dataclass(frozen=True, eq=False)
class Tour:
    """Everything that the demo measured.

    Attributes:
        tasks: accuracy and score of each task.
        facts: pairs of one template, so that a position means the same in each.
        every_fact: pairs over all templates, patched at named positions.
        resid, branches, heads_z: patching sweeps on ``facts``, denoising.
        named: the residual stream at ``subject`` and ``END`` on ``every_fact``.
        traced, twin_traced: causal tracing of facts that the model knows, and of the same prompts
            in the twin; None if it knows none.
        twin_heads: the head scores of the untrained twin, the null control.
    """

    model: Model
    twin: Model
    seed: int
    tasks: tuple[Task, ...]
    heads: HeadScores
    twin_heads: HeadScores
    facts: Prompts
    every_fact: Prompts
    lens: LensResult
    resid: PatchResult
    branches: PatchResult
    heads_z: PatchResult
    named: PatchResult
    traced: TraceResult | None
    twin_traced: TraceResult | None

    @property
    def knows_facts(self) -> bool:
        """Whether there is a fact to locate at all."""
        return _knows_facts(self.tasks)

    def found(self, kind: str) -> dict[str, float]:
        """Heads of a kind and their scores, if twice what the twin's best head reaches."""
        scores = dict(self.heads.top(kind, self.heads.induction.numel()))
        best = self.twin_heads.top(kind, 1)[0][1]
        return {n: scores[n] for n in self.heads.found(kind) if scores[n] > 2 * best}

    def sites(self) -> dict[str, dict[str, float | int]]:
        """Where patching the residual stream restores the fact, over all templates.

        For each named position the layer that restores most and the share it restores,
        with its bootstrap interval.
        """
        shares = self.named.normalized()
        gap = self.named.clean.mean() - self.named.corrupted.mean()  # type: ignore[union-attr]
        interval = self.named.interval()
        out: dict[str, dict[str, float | int]] = {}
        for column, name in enumerate(self.named.axes[1].labels):
            layer = int(shares[:, column].argmax())
            base = self.named.corrupted.mean()  # type: ignore[union-attr]
            bounds = [float((bound[layer, column] - base) / gap)
                      for bound in (interval.low, interval.high)]  # fmt: skip
            out[name] = {
                "layer": layer,
                "recovered": float(shares[layer, column]),
                "low": min(bounds),
                "high": max(bounds),
            }
        return out

    def findings(self) -> list[str]:
        """What the measurements bear, as sentences; empty if nothing was found."""
        said = []
        for kind in ("previous_token", "duplicate_token", "induction"):
            found = self.found(kind)
            best = self.twin_heads.top(kind, 1)[0][1]
            if found:
                names = ", ".join(f"{name} ({score:.2f})" for name, score in found.items())
                said.append(
                    f"{kind.replace('_', '-')} heads: {names}; untrained twin's best {best:.2f}"
                )
        if not self.knows_facts:
            return said
        for position, site in self.sites().items():
            said.append(
                f"patching the residual stream at {position} restores {site['recovered']:.0%} "
                f"[{site['low']:.0%}, {site['high']:.0%}] of the capital before block "
                f"{site['layer']}"
                + (" (by construction: the pairs differ nowhere else there)" * (site["layer"] == 0))
            )
        if self.traced is not None and self.twin_traced is not None:
            said.append(_said_by_tracing(self.traced, self.twin_traced))
        movers = self.heads_z.to_frame().nlargest(3, "normalized").query("normalized > 0.05")
        names = ", ".join(
            f"L{row['layer']}.H{row['head']} ({row['normalized']:.0%})"
            for row in movers.to_dict("records")
        )
        if names:
            said.append(f"heads that restore most of the capital on their own: {names}")
        return said

    def summary(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "model": self.model.name,
            "weights_hash": self.model.weights_hash,
            "twin": self.twin.name,
            "seed": self.seed,
            "tasks": [vars(task) for task in self.tasks],
            "heads": {k: self.heads.top(k, 3) for k in _KINDS},
            "twin_heads": {k: self.twin_heads.top(k, 3) for k in _KINDS},
            "knows_facts": self.knows_facts,
            "patching": self.sites() if self.knows_facts else None,
            "traced": None
            if self.traced is None
            else self.traced.by_role().top(6).to_dict("records"),
            "findings": self.findings(),
            "provenance": vars(self.named.provenance),
        }


_KINDS = ("previous_token", "duplicate_token", "induction", "copying_logit")


def _said_by_tracing(traced: TraceResult, twin: TraceResult) -> str:
    effects = traced.select(kind="states").by_role().indirect_effect()
    best = []
    for role in ("last subject token", "last token"):
        column = effects[:, ROLES.index(role)]
        best.append(f"{float(column.max()):.2f} at the {role} behind block {int(column.argmax())}")
    theirs = float(twin.indirect_effect().abs().nan_to_num().max())
    return (
        f"tracing: noise on the subject takes P(capital) from {traced.clean.mean():.2f} to "
        f"{traced.corrupted.mean():.2f}; one state put back restores {' and '.join(best)} "
        f"(untrained twin: at most {theirs:.3f} of its own top token's)"
    )


def _knows_facts(tasks: tuple[Task, ...]) -> bool:
    task = next(t for t in tasks if t.name == "capitals" and t.metric == "accuracy")
    return task.value >= KNOWN > task.control


def take_tour(model: Model, *, seed: int = 0, n: int = 64, progress: bool | None = None) -> Tour:
    """Measure a model that knows the demo's tasks, and its untrained twin.

    Args:
        n: prompts for each task.
    """
    twin = model.random_twin(seed + 1)  # another draw, so that a twin has a twin too
    every = prompts.capitals(model, n=n, seed=seed)
    facts = _one_template(model, n, seed)
    steps: dict[str, Callable[[], Any]] = {
        "tasks": lambda: tuple(_tasks(model, twin, n, seed)),
        "heads": lambda: head_scores(model, seed=seed),
        "twin_heads": lambda: head_scores(twin, seed=seed),
        "lens": lambda: lens(model, facts),
        "resid": lambda: patch(model, facts, "L*.resid_pre", progress=False),
        "branches": lambda: patch(model, facts, ["L*.attn_out", "L*.mlp_out"], progress=False),
        "heads_z": lambda: patch(model, facts, "L*.H*.z@END", progress=False),
        "named": lambda: patch(
            model, every, "L*.resid_pre", positions=["subject", "END"], progress=False
        ),
    }
    done: dict[str, Any] = {}
    steps["traced"] = lambda: _trace(model, every, done["tasks"], seed)
    steps["twin_traced"] = lambda: None if done["traced"] is None else trace(
        twin, replace(every.subset(slice(TRACED)), answers=None, foils=None), kinds=("states",),
        samples=5, seed=seed, progress=False,
    )  # fmt: skip
    for name in track(steps, total=len(steps), what="measuring", show=progress, least=1):
        done[name] = steps[name]()
    return Tour(model=model, twin=twin, seed=seed, facts=facts, every_fact=every, **done)


def _trace(model: Model, facts: Prompts, tasks: tuple[Task, ...], seed: int) -> TraceResult | None:
    """Causal tracing of some of the facts that the model knows."""
    if not _knows_facts(tasks) or facts.answers is None:
        return None
    top = model.run(facts, logits="last").logits[:, 0].argmax(-1).cpu()
    known = (facts.answers == top[:, None]).any(-1).nonzero().flatten()[:TRACED]
    return trace(model, facts.subset(known), samples=5, seed=seed, progress=False)


def _one_template(model: Model, n: int, seed: int) -> Prompts:
    """Pairs of the template that the seed draws first."""
    pool = prompts.capitals(model, n=8 * n, seed=seed)
    assert pool.groups is not None  # tasks always say their template
    rows = [i for i, group in enumerate(pool.groups) if group == pool.groups[0]]
    part = pool.subset(rows[:n])
    width = int(part.clean.n_real.max())
    return model.prompts(
        part.clean.ids[:, :width],
        part.corrupted.ids[:, :width],  # type: ignore[union-attr]
        answers=part.answers,
        foils=part.foils,
        positions={k: v.tolist() for k, v in part.positions.items() if k != "END"},
        name=part.name,
        seed=seed,
    )


def _tasks(model: Model, twin: Model, n: int, seed: int) -> list[Task]:
    relations = {
        f"{name}{'' if split == 'trained' else ' (held out)'}": draw(model, n, seed, split=split)
        for name, draw in (("capitals", prompts.capitals), ("languages", prompts.languages),
                           ("continents", prompts.continents), ("currencies", prompts.currencies))
        for split in ("trained", "heldout")
    }  # fmt: skip
    asked: list[tuple[str, Prompts, str]] = [
        *((name, pairs, "accuracy") for name, pairs in relations.items()),
        ("ioi", prompts.ioi(model, n, seed), "accuracy"),
        ("ioi", prompts.ioi(model, n, seed), "logit_diff"),
        ("greater_than", prompts.greater_than(model, n, seed), "prob_diff"),
        ("mcq (2 options)", prompts.mcq(model, n, seed, options=2), "accuracy"),
        ("mcq (4 options)", prompts.mcq(model, n, seed, options=4), "accuracy"),
        ("induction", prompts.induction(model, n, seed), "accuracy"),
    ]
    return [_task(name, pairs, metric, model, twin) for name, pairs, metric in asked]


@torch.no_grad()
def _task(name: str, pairs: Prompts, metric: str, model: Model, twin: Model) -> Task:
    def score(who: Model) -> torch.Tensor:
        logits = who.run(pairs).logits.cpu()
        return metrics.evaluate(metric, logits, pairs)

    interval = metrics.bootstrap(score(model))
    return Task(name, metric, float(interval.mean), float(interval.low), float(interval.high),
                float(score(twin).mean()))  # fmt: skip
