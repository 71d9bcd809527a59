"""A run that is differentiated: weights frozen, the metric on top, gradients of whole tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp import metrics
from interp.errors import MetricError
from interp.metrics import Metric
from interp.prompts.prompts import Prompts
from interp.runs.edits import Edit
from interp.runs.execute import Run, execute
from interp.sites import Site
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["Gradients", "Objective", "Side", "Trace", "trace"]

Side = Literal["clean", "corrupted"]
#: ∂(sum of the prompts' scores)/∂x for whole tensors x; a prompt's row is its own gradient.
Gradients = Mapping[Site, Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """The metric of some prompts, as a function of a run.

    Attributes:
        prompts: on the model's device.
        reference: the clean run's logits at the answer, for metrics that compare with them.
    """

    metric: Metric
    prompts: Prompts
    reference: Float[Tensor, "prompt d_vocab"] | None = None

    @property
    def logits(self) -> Literal["last", "all"]:
        """Which logits a run must compute."""
        return "last" if self.metric.positions == "answer" else "all"

    def scores(self, run: Run, side: Side) -> Float[Tensor, " prompt"]:
        """A score for each prompt, with its graph if the run has one."""
        if self.metric.positions == "all":
            return metrics.evaluate(self.metric, run.logits, self.prompts, side=side)
        return metrics.at_answer(
            self.metric, run.logits[:, 0], self.prompts, reference=self.reference
        )

    def rows(self, rows: Sequence[int]) -> Objective:
        """The same for some of the prompts, which may come several times."""
        reference = None if self.reference is None else self.reference[list(rows)]
        return replace(self, prompts=self.prompts.subset(rows), reference=reference)


@dataclass(frozen=True, eq=False)
class Trace:
    """A run with its graph: scores, and the tensors that lie on the path to them."""

    scores: Float[Tensor, " prompt"]
    tensors: Mapping[Site, Tensor]

    def gradients(self, *, keep: bool = False) -> Gradients:
        """One backward pass; ``keep`` the graph for another."""
        inputs = list(self.tensors.values())
        found = torch.autograd.grad(
            self.scores, inputs, torch.ones_like(self.scores), retain_graph=keep,
            materialize_grads=True,  # 0 where a dictionary stands for what reads the tensor
        )  # fmt: skip
        return dict(zip(self.tensors, found, strict=True))

    def values(self) -> dict[Site, Tensor]:
        """The tensors without their graph."""
        return {site: tensor.detach() for site, tensor in self.tensors.items()}


def trace(
    anatomy: Anatomy,
    tokens: TokenBatch,
    objective: Objective,
    side: Side,
    sites: Sequence[Site],
    edit: Mapping[str, Edit] | None = None,
) -> Trace:
    """Run the prompts as one batch with a graph from the embeddings to their scores.

    Raises:
        MetricError: the scores do not depend on the logits in a way that can be differentiated.
    """
    edits = dict(edit or {})
    if any(site.point == "pos_embed" for site in sites):  # nothing before it has a graph
        edits.setdefault("pos_embed", torch.Tensor.requires_grad_)
    run = execute(
        anatomy, tokens, save=sites, edit=edits, grad=True,
        logits=objective.logits, rows_at_once=len(tokens),
    )  # fmt: skip
    with torch.enable_grad():
        scores = objective.scores(run, side)
    if not scores.requires_grad:
        raise MetricError(
            f"metric {objective.metric.name!r} returned scores without a graph, so there is no "
            "gradient to attribute by: expected a differentiable function of the logits. Leave "
            "out .detach(), .item(), argmax and comparisons, or use interp.patch."
        )
    return Trace(scores, {site: run.cache[site] for site in sites})
