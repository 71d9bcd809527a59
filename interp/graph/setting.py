"""What circuits are measured on: a model, prompts, a metric, and what ablated edges carry.

For a set of kept edges, the run in which every other edge is ablated is computed exactly: each
node reads the sum of what kept edges carry in this run and what ablated ones carry instead,
and everything behind it is recomputed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import metrics
from interp.engine.probe import why_not
from interp.engine.readout import Readout
from interp.errors import BudgetError, GraphError
from interp.graph.ablate import first_block, logits_of
from interp.graph.ablations import Ablated, Ablation, ablated_values, check_ablation
from interp.graph.graph import Graph
from interp.graph.layout import position_groups, prompts_together, weights_now
from interp.graph.parts import Parts
from interp.graph.proof import prove
from interp.graph.slab import Slab, run_slab
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.setup import baselines, on_device, with_answers
from interp.prompts.prompts import Prompts
from interp.runs.frozen import frozen
from interp.runs.memory import SMALL, as_text, available
from interp.token_batch import TokenBatch

__all__ = ["Setting"]

Kept = (
    Float[Tensor, "variant source dest *position"] | Bool[Tensor, "variant source dest *position"]
)


@dataclass(frozen=True, eq=False, repr=False)
class Setting:
    """What circuits are measured on. Made by :meth:`of`; runs nothing before it is asked to.

    Attributes:
        model, prompts: with answers, on the model's device.
        graph: the model's nodes and edges.
        parts: how its nodes write and read.
        metric: what a run is scored by.
        ablation: what ablated edges carry.
        direction: ``"noise"`` (edges are ablated in the clean run) or ``"denoise"`` (in the
            corrupted run; what "ablated" edges carry is then the clean run's).
        ablated: what every source's ablated edges carry, for some of the prompts.
        rows: the prompts that run together.
        reason: why blocks cannot be replayed; None if they can.
    """

    model: Model
    prompts: Prompts
    graph: Graph
    parts: Parts
    metric: Metric
    ablation: Ablation
    direction: Literal["noise", "denoise"]
    ablated: Ablated
    rows: tuple[slice, ...]
    reason: str | None

    @classmethod
    def of(
        cls,
        model: Model,
        prompts: Prompts,
        *,
        metric: Any = "logit_diff",
        ablation: Ablation = "resample",
        reference: Prompts | None = None,
        direction: Literal["noise", "denoise"] = "noise",
        units: Iterable[str] = (),
        positions: Iterable[str] = (),
        freeze_norms: bool = False,
        batch: int | Literal["auto"] = "auto",
    ) -> Setting:
        """Run the prompts, and what ablated edges carry.

        Args:
            metric: as for :func:`interp.patch`.
            ablation: ``"resample"``: the paired corrupted run's values. ``"zero"``. ``"mean"``:
                means over ``reference``, position by position, each template by itself.
            reference: prompts to average over; never the measured ones unless you pass them.
            direction: ``"denoise"`` turns a pair round: the corrupted run is edited, and ablated
                edges carry what they carry in the clean run. For ``ablation="resample"`` only.
            units, positions: as for :meth:`Graph.of`.
            freeze_norms: hold the scale that each norm divides by at the unedited run's. The
                default recomputes it, as the model does.
            batch: prompts at a time, or ``"auto"``.

        Raises:
            GraphError: the model has no such graph, or the ablation does not fit the prompts.
            MetricError: the prompts lack what the metric needs.
        """
        if not isinstance(prompts, Prompts):
            raise GraphError(
                f"given {type(prompts).__name__} in the place of prompts: make them with model.prompts(clean, "
                "corrupted, answers=..., foils=...)."
            )
        if model.hf.training:
            raise GraphError(
                f"{model.name} is in training mode, where dropout draws anew in each run: call "
                "model.hf.eval() first."
            )
        check_ablation(ablation, prompts, reference)
        if direction not in ("noise", "denoise") or (direction, ablation) in (
            ("denoise", "zero"), ("denoise", "mean")
        ):  # fmt: skip
            raise GraphError(
                f"direction={direction!r} with ablation={ablation!r}: expected 'noise', or 'denoise' "
                "with ablation='resample', where the clean run's values go into the corrupted run."
            )
        graph = Graph.of(model, units=units, positions=positions)
        parts = Parts(model.anatomy, frozen=freeze_norms)
        how = metrics.resolve(metric)
        prompts = on_device(with_answers(model, prompts, how), model.device)
        prove(graph, parts, prompts.clean)
        sides = prompts.clean, prompts.corrupted
        tokens, other = sides if direction == "noise" else sides[::-1]
        assert tokens is not None  # check_ablation has seen to it
        values = ablated_values(graph, parts, prompts, other, ablation, reference)
        rows = prompts_together(graph, model, tokens, batch)
        return cls(model, prompts, graph, parts, how, ablation, direction, values, rows,
                   why_not(model.anatomy))  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"Setting({self.model.name}, {self.graph!r}, {len(self.prompts)} prompts; "
            f"{self.metric.name}: full {self.full.mean():.3g}, empty {self.empty.mean():.3g}; "
            f"{self.ablation}, {self.engine})"
        )

    @property
    def engine(self) -> str:
        """``"replay"``, or ``"plain"`` with the reason."""
        return "replay" if self.reason is None else f"plain: {self.reason}"

    @property
    def tokens(self) -> TokenBatch:
        """The run in which edges are ablated."""
        side = self.prompts.clean if self.direction == "noise" else self.prompts.corrupted
        assert side is not None  # check_ablation has seen to it
        return side

    @property
    def start(self) -> int:
        """The first column at which anything ablated can differ, or that is read."""
        if not self.model.anatomy.causal:  # what stands at one column reaches all of them
            return 0
        columns = [self.tokens.ids.shape[1] - 1]
        columns += [int(self.prompts.differing().min())] if self.ablation == "resample" else [0]
        columns += [] if self._whole else [int(self.prompts.answer_column.min())]
        return min(columns)

    @property
    def _whole(self) -> bool:
        return self.metric.positions == "all"

    @cached_property
    def groups(self) -> Int[Tensor, "prompt pos"] | None:
        """The group of positions of each column, where the graph has such."""
        return position_groups(self.graph, self.prompts)

    def only(self, rows: slice) -> Setting:
        """Some of the prompts, which run together, as a setting of their own."""
        first = rows.start

        def ablated(own: slice) -> Tensor:
            return self.ablated(slice(first + own.start, first + own.stop))

        n = len(range(len(self.prompts))[rows])
        return replace(
            self, prompts=self.prompts.subset(rows), ablated=ablated, rows=(slice(0, n),)
        )

    @cached_property
    def slabs(self) -> tuple[Slab, ...]:
        """The run in which edges are ablated, done once and kept.

        Raises:
            BudgetError: what the nodes write in it does not fit in memory.
        """
        needed, free = self._kept, available(self.model.device)
        if needed > max(free, SMALL):
            raise BudgetError(
                f"ablating edges keeps what {len(self.graph.sources)} nodes write for {len(self.prompts)} "
                f"prompts of {self.tokens.ids.shape[1]} tokens, {as_text(needed)}, and {as_text(free)} are "
                "free: give fewer prompts at a time (prompts.subset), or attribute by gradients."
            )
        _ = self._weights  # as they are now
        return tuple(
            run_slab(self.graph, self.parts, self.tokens, rows, self.ablated, start=self.start,
                     groups=self.groups, whole=self._whole, replays=self.reason is None)
            for rows in self.rows
        )  # fmt: skip

    @cached_property
    def _weights(self) -> tuple[tuple[int, int], ...]:
        """The weights that the slabs were run with, by place and number of writes."""
        return weights_now(self.model)

    @property
    def _kept(self) -> int:
        """Bytes of all slabs: nodes' terms, what they carry when ablated, and the blocks' inputs."""
        width, anatomy = self.tokens.ids.shape[1], self.model.anatomy
        behind = width - (self.start if self.reason is None else 0)
        terms = len(self.graph.sources) * behind * (1 if self.ablation == "zero" else 2)
        streams = 5 * anatomy.n_layers * width if self.reason is None else 0
        size = max(4, next(anatomy.hf.parameters()).element_size())
        return len(self.prompts) * (terms + streams) * anatomy.d_model * size

    @cached_property
    def _baseline(self) -> tuple[Float[Tensor, " prompt"], Readout]:
        own = torch.cat([slab.logits for slab in self.slabs])
        if self.direction == "noise":
            base = baselines(self.prompts, self.metric, {"clean": own})
            return base.scores["clean"].cpu(), base.readouts["clean"]
        clean = self.model.run(self.prompts.clean, logits="all" if self._whole else "last").logits
        base = baselines(self.prompts, self.metric, {"clean": clean, "corrupted": own})
        return base.scores["corrupted"].cpu(), base.readouts["corrupted"]

    @property
    def full(self) -> Float[Tensor, " prompt"]:
        """Scores with nothing ablated."""
        return self._baseline[0]

    @property
    def readout(self) -> Readout:
        """What is read of a variant's run."""
        return self._baseline[1]

    @cached_property
    def empty(self) -> Float[Tensor, " prompt"]:
        """Scores with every edge ablated."""
        return self.scores(torch.zeros_like(self.graph.full)[None])[0]

    # -- runs ------------------------------------------------------------------------------

    def scores(self, kept: Kept, *, grad: bool = False) -> Float[Tensor, "variant prompt"]:
        """The metric of each variant's run.

        Args:
            kept: how much of each edge is kept: 1 or True carries what its source writes in this
                run, 0 or False its ablated value, and a share the mixture. What stands where there
                is no edge does not matter.
            grad: keep the graph, so that scores can be differentiated with respect to ``kept``.

        Returns:
            Scores in the metric's unit, a row for each variant, on the CPU.

        Raises:
            GraphError: ``kept`` has another shape than the graph's masks, or weights were written since
                the first run.
        """
        removed = self._removed(kept)
        if self._weights != weights_now(self.model):
            raise GraphError(
                f"weights of {self.model.name} were written after this setting had run: it would mix both. "
                "Make another with Setting.of."
            )
        out: list[Tensor | None] = [None] * len(removed)
        with frozen(self.model.hf):
            for chosen, first in self._parts(removed, grad=grad):
                logits = torch.cat(
                    [logits_of(slab, removed[chosen], first, self.readout.rows(own), grad=grad)
                     for slab, own in zip(self.slabs, self.rows, strict=True)], 1,
                )  # fmt: skip
                with torch.set_grad_enabled(grad):
                    rows = self.readout.of(logits).cpu()
                for place, row in zip(chosen, rows, strict=True):
                    out[place] = row
        return torch.stack([row for row in out if row is not None])

    def _removed(self, kept: Kept) -> Float[Tensor, "variant source dest *position"]:
        full = self.graph.full
        if kept.dim() != full.dim() + 1 or kept.shape[1:] != full.shape or not len(kept):
            raise GraphError(
                f"kept has shape {list(kept.shape)}, expected [variant, {', '.join(map(str, full.shape))}]"
                ": a mask of the graph for each variant (graph.mask(edges)[None] for one)."
            )
        change = self.slabs[0].change
        return (1 - kept.to(change)) * full.to(change)

    def _parts(self, removed: Tensor, *, grad: bool) -> Iterator[tuple[list[int], int]]:
        """Variants that run together, and the block at which they start."""
        first = first_block(self.slabs[0], removed.detach()).tolist()
        first = [0] * len(first) if grad else first
        order = sorted(range(len(first)), key=lambda v: (-first[v], v))
        step = self.variants_at_once
        for low in range(0, len(order), step):
            chosen = order[low : low + step]
            yield chosen, min(first[v] for v in chosen)

    @property
    def variants_at_once(self) -> int:
        """How many variants may run together, by memory and by what one call takes well."""
        slab = max(self.slabs, key=len)
        columns = len(slab) * slab.change.shape[2]
        size = slab.change.element_size() * slab.change.shape[-1] * columns
        vocab = self.model.d_vocab if self.readout.vocab is None else len(self.readout.vocab)
        logits = len(self.prompts) * vocab * slab.change.element_size()
        logits *= 1 if self.readout.answer is not None else self.prompts.clean.ids.shape[1]
        per_variant = size * (len(self.graph.sources) + 6 * self.graph.n_heads + 24) + 4 * logits
        fits = available(self.model.device) // (2 * per_variant)
        width = _TOGETHER.get(self.model.device.type, _TOGETHER_ELSEWHERE) // max(columns, 1)
        return int(max(1, min(fits, width)))


#: Tokens of all variants that pass a block together: on a CPU, what its caches hold.
_TOGETHER: Final = {"cpu": 2048}
_TOGETHER_ELSEWHERE: Final = 65536
