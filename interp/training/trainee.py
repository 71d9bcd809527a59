"""One dictionary in training: weights, optimiser, counters, and a step.

A step is: gradients (by either kernel), their sum over ranks, the part parallel to decoder rows taken
out, the norm clipped, Adam, decoder rows back to norm 1, counters. Everything that the next step
depends on is in :meth:`Trainee.state`, so that a restored trainee goes on to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.dictionaries.activations import BatchTopK
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.folding import fold_scales
from interp.dictionaries.spec import DictionarySpec
from interp.errors import TrainingError
from interp.harvesting.ranks import Ranks
from interp.store.rows import Rows
from interp.training.config import TrainConfig
from interp.training.dense import dense_step
from interp.training.initial import initialise, scale_to_fit
from interp.training.objectives import Moment, objective
from interp.training.optimiser import Adam, project_out, unit_rows
from interp.training.parallel import Together
from interp.training.resampling import resample
from interp.training.results import Outcome
from interp.training.scales import Scales
from interp.training.schedule import coefficient, rate
from interp.training.sparse import sparse_step

__all__ = ["Trainee"]

#: Rows by which the encoder's first size is found.
_FEW = 1024


class Trainee:
    """A dictionary and all that its training needs.

    Attributes:
        name: what it is called in the log.
        config: how it is trained.
        dictionary: its weights, in normalised units.
    """

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        spec: DictionarySpec,
        sample: Sequence[Rows],
        together: Together,
    ) -> None:
        self.name, self.config, self.together = name, config, together
        self.objective = objective(config)
        self.generator = torch.Generator().manual_seed(config.seed)
        reads, writes = (
            [torch.cat([together.rows(_flat(rows[site])) for rows in sample]) for site in sites]
            for sites in (spec.reads, spec.writes)
        )
        shift = spec.kind != "sae"
        self.scales = Scales.of(reads, writes, shift=shift, scale=config.normalise)
        self.dictionary = Dictionary(spec).to(reads[0])
        xs = [self.scales.read(i, x) for i, x in enumerate(reads)]
        ys = [self._target(self.scales.written(i, y)) for i, y in enumerate(writes)]
        initialise(self.dictionary, config, xs, ys, self.generator)
        few = [x[:_FEW] for x in xs], torch.cat(ys, -1)[:_FEW]
        alone = Moment(len(few[1]), 0.0, Together(Ranks()))  # every rank has the same rows
        scale_to_fit(self.dictionary, self.objective, *few, alone)
        self.parameters = dict(self.dictionary.named_parameters())
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self.adam = Adam(self.parameters, betas=config.betas)
        shape = (len(spec.reads), spec.d_sae)
        self.since_active = torch.zeros(shape, dtype=torch.long, device=reads[0].device)
        self.firing = torch.zeros(shape, device=reads[0].device)
        self.seen = 0

    @property
    def asleep(self) -> Bool[Tensor, "part d_sae"]:
        """Features that have not been active for long."""
        assert self.config.dead_after is not None  # settled by the configuration
        return self.since_active >= self.config.dead_after

    # -- a step ------------------------------------------------------------------------

    def step(self, rows: Rows, *, measure: bool = False) -> dict[str, float]:
        """Train on a batch; what was measured, if asked for.

        Raises:
            TrainingError: the gradient is not finite; the weights are as they were.
        """
        xs, y = self.taken(rows)
        at, config = self.seen, self.config
        moment = Moment(len(y) * self.together.ranks.world, coefficient(config, at), self.together)
        outcome = self.gradients(xs, y, moment)
        if not self.together.alone:
            self.together.add(*(p.grad for p in self.parameters.values() if p.grad is not None))
        norm = self._update(rate(config, at), xs, y)
        picked = outcome.picked
        self.together.add(*picked.counts)
        self.together.least(*picked.least)
        self._count(torch.stack(picked.counts), moment.rows)
        self.objective.after(self.dictionary, picked, at)
        self.seen += 1
        if config.resample_every and self.seen % config.resample_every == 0:
            self._resample(xs, outcome)
        return self._measured(outcome, y, norm, moment) if measure else {}

    def gradients(
        self, xs: Sequence[Float[Tensor, "row d_in"]], y: Float[Tensor, "row width"], moment: Moment
    ) -> Outcome:
        """Losses of a batch; its gradients stand in the parameters' ``.grad``."""
        dead = self.asleep
        revived = list(dead) if self.config.auxk and bool(dead.any()) else None
        kernel = sparse_step if self.config.sparse else dense_step
        return kernel(self.dictionary, self.objective, xs, y, revived, moment)

    def taken(
        self, rows: Rows
    ) -> tuple[list[Float[Tensor, "row d_in"]], Float[Tensor, "row width"]]:
        """What these rows read and what they should write, in normalised units."""
        spec, scales = self.dictionary.spec, self.scales
        xs = [scales.read(i, _flat(rows[site])) for i, site in enumerate(spec.reads)]
        if spec.kind == "sae":
            return xs, xs[0]
        ys = [scales.written(i, _flat(rows[site])) for i, site in enumerate(spec.writes)]
        y = ys[0] if len(ys) == 1 else torch.cat(ys, -1)
        return xs, self._target(y)

    def _target(self, y: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        """What is to be written: of other tokens, for the null control."""
        return y.roll(1, 0) if self.config.null == "permuted" else y

    @torch.no_grad()
    def _update(self, lr: float, xs: Sequence[Tensor], y: Tensor) -> Tensor:
        if self.config.unit_decoder:
            for part in self.dictionary.parts:
                assert part.dec.grad is not None
                project_out(part.dec.grad, part.dec)
        norm = self.adam.clip(self.config.clip)
        if not bool(norm.isfinite()):
            finite = all(bool(t.isfinite().all()) for t in (*xs, y))
            raise TrainingError(
                f"{self.name}: at step {self.seen + 1} of {self.config.steps} the gradient is not finite. "
                + ("Training has diverged: give a lower lr, or a smaller clip." if finite else
                   "The activations of this batch are not: the model or the store holds NaN or infinities.")
                + " Checkpoints of earlier steps are kept."
            )  # fmt: skip
        self.adam.step(lr)
        if self.config.unit_decoder:
            for part in self.dictionary.parts:
                unit_rows(part.dec)
        return norm

    def _count(self, counts: Tensor, rows: int) -> None:
        self.since_active += rows
        self.since_active[counts > 0] = 0
        decay = self.config.firing_decay
        weight = max(1 - decay, 1 / (self.seen + 1))
        self.firing.lerp_(counts.to(self.firing.dtype) / rows, weight)

    def _resample(self, xs: Sequence[Tensor], outcome: Outcome) -> None:
        dead = self.asleep
        all_xs = [self.together.rows(x) for x in xs]
        error = self.together.rows(outcome.error)
        share = 1.0 if self.config.picks else 0.2
        changed = resample(self.dictionary, all_xs, error, list(dead), self.generator, share=share)
        for parameter, index in changed:
            self.adam.forget(parameter, index)
        self.since_active[dead] = 0

    def _measured(
        self, outcome: Outcome, y: Tensor, norm: Tensor, moment: Moment
    ) -> dict[str, float]:
        total, terms = y.sum(0), torch.stack([*outcome.terms.values(), outcome.squared_error])
        self.together.add(total, terms)
        variance = (y - total / moment.rows).square().sum()
        self.together.add(variance)
        *values, squared = terms.tolist()
        spread = float(variance)
        spec = self.dictionary.spec
        out = {
            "loss": sum(values),
            **dict(zip(outcome.terms, values, strict=True)),
            "fvu": squared / spread if spread else math.nan,
            "l0": float(torch.stack(outcome.picked.counts).sum()) / moment.rows / len(spec.reads),
            "dead": float(self.asleep.float().mean()),
            "grad_norm": float(norm),
            "lr": rate(self.config, self.seen - 1),
        }
        if not self.config.picks:
            out["coefficient"] = moment.coefficient
        if isinstance(own := self.dictionary.parts[0].activation, BatchTopK):
            out["threshold"] = float(own.threshold)
        return out

    # -- its state, and what it becomes --------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next step depends on, as tensors and as JSON values."""
        tensors = {f"weights.{n}": t for n, t in self.dictionary.state_dict().items()}
        tensors |= {f"adam.{n}": t for n, t in self.adam.state_dict().items()}
        tensors |= {f"scales.{n}": t for n, t in vars(self.scales).items()}
        tensors |= {
            "since_active": self.since_active,
            "firing": self.firing,
            "generator": self.generator.get_state(),
        }
        return tensors, {"seen": self.seen}

    def go_to(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        device = self.since_active.device

        def under(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        self.dictionary.load_state_dict(under("weights."))
        self.adam.load_state_dict(under("adam."))
        self.scales = Scales(**{n: t.to(device) for n, t in under("scales.").items()})
        self.since_active.copy_(tensors["since_active"])
        self.firing.copy_(tensors["firing"])
        self.generator.set_state(tensors["generator"])
        self.seen = values["seen"]

    def finished(self, metadata: Mapping[str, Any]) -> Dictionary:
        """The dictionary in the model's own units."""
        scales, spec = self.scales, self.dictionary.spec
        tensors = {n: t.detach().clone() for n, t in self.dictionary.state_dict().items()}
        told = replace(spec, metadata={**spec.metadata, **metadata})
        made = Dictionary.of(told, tensors)
        if spec.crossing:
            return fold_scales(
                made,
                in_shift=scales.in_shift,
                in_scale=scales.in_scale,
                out_scale=scales.out_scale,
            )
        shift = 0.0 if spec.kind == "sae" else scales.in_shift[0]
        return fold_scales(
            made,
            in_shift=shift,
            in_scale=float(scales.in_scale[0]),
            out_scale=float(scales.out_scale[0]),
        )


def _flat(x: Float[Tensor, "row *rest"]) -> Float[Tensor, "row width"]:
    """Heads side by side."""
    return x.flatten(1)
