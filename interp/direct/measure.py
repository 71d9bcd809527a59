"""Reading every part along every target, a few prompts at a time, with the proof that it adds up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.direct.proof import check
from interp.direct.reader import scale_of
from interp.direct.stream import Outline
from interp.direct.targets import Along, Logits, Target
from interp.direct.terms import Branch, Term
from interp.progress import track
from interp.runs.execute import Run, execute
from interp.runs.memory import elements_of
from interp.sites import Site
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["Measured", "loudest_neurons", "measure"]

Batch = int | Literal["auto"]
#: Numbers held at once for the prompts that run together.
_AT_ONCE = 2**26


@dataclass(frozen=True, eq=False)
class Measured:
    """What was read.

    Attributes:
        names: of the parts; ``bias`` comes last where the target has one.
        parts: NaN where a column is padding.
        total: the same measure of the model itself.
        null: each draw's mean over prompts; None without a control.
        error: largest distance between the sum of the parts and the total.
    """

    names: tuple[str, ...]
    parts: Float[Tensor, "part k prompt pos"]
    total: Float[Tensor, "k prompt pos"]
    null: Float[Tensor, "draw part pos"] | None
    error: float


@dataclass(frozen=True, eq=False)
class _Read:
    """A few prompts' run, at the columns where they are read."""

    plan: Outline
    run: Run
    columns: Int[Tensor, "row pos"]
    real: Bool[Tensor, "row pos"]
    rows: slice

    def pick(self, x: Float[Tensor, "row width *any"]) -> Float[Tensor, "row pos *any"]:
        return x[torch.arange(len(x), device=x.device)[:, None], self.columns.to(x.device)]

    def terms(self) -> list[Term]:
        return self.plan.terms(self.run.cache, self.pick)

    def stream(self) -> Float[Tensor, "row pos d_model"]:
        x = self.pick(self.run.cache[self.plan.at])
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def scale(self, target: Target) -> Float[Tensor, "row pos"] | float:
        if isinstance(target, Along):
            return 1.0
        return scale_of(self.plan.anatomy, self.stream())

    def parts(self, terms: list[Term], target: Target) -> Float[Tensor, "part k row pos"]:
        """What each part adds to each target; last, what belongs to none of them."""
        directions, constant = target.directions(self.plan.anatomy)
        found = torch.cat([term.along(directions) for term in terms]) / self.scale(target)
        if isinstance(target, Along):
            return found
        rest = constant[None, :, :, None].expand_as(found[:1])
        return torch.cat([found, rest.to(found)])

    def total(self, target: Target) -> Float[Tensor, "k row pos"]:
        """The same of the run itself: its own logits, or its own stream."""
        if isinstance(target, Along):
            return torch.einsum(
                "rpd,krd->krp", self.stream(), target.directions(self.plan.anatomy)[0]
            )
        logits = self.run.logits
        last = logits.shape[1] == 1 and self.run.tokens.ids.shape[1] > 1
        resid = self.pick(self.run.cache[self.plan.at])
        return target.own(self.plan.anatomy, resid, logits if last else self.pick(logits))


def measure(
    plan: Outline,
    anatomy: Anatomy,
    tokens: TokenBatch,
    columns: Int[Tensor, "prompt pos"],
    real: Bool[Tensor, "prompt pos"],
    target: Target,
    control: Target | None,
    *,
    batch: Batch,
    progress: bool | None,
) -> Measured:
    """Read the parts of every prompt, and of every draw of the control their sum over prompts.

    Raises:
        ModelError: the parts do not sum to the total.
    """
    names: tuple[str, ...] = ()
    parts, totals, drawn, error = [], [], [], 0.0
    width = len(target) + (0 if control is None else len(control))
    asked = (plan, anatomy, tokens, columns, real, batch, progress)
    for read in _reads(*asked, width=width, logits=isinstance(target, Logits)):
        terms, mine = read.terms(), target.rows(read.rows)
        found, total = read.parts(terms, mine), read.total(mine)
        gone = ~read.real.to(found.device)
        off = (found.sum(0) - total).masked_fill(gone, 0.0)
        largest = float(found.masked_fill(gone, 0.0).abs().max())
        what = f"a {plan.at} read along a direction" if isinstance(target, Along) else "the logits"
        error = max(error, check(anatomy, read.run.tokens, off, largest, what))
        names = tuple(name for term in terms for name in term.names)
        parts.append(found.masked_fill(gone, torch.nan).cpu())
        totals.append(total.masked_fill(gone, torch.nan).cpu())
        if control is not None:
            other = read.parts(terms, control.rows(read.rows)).masked_fill(gone, 0.0)
            drawn.append(other.sum(2).cpu())
    if isinstance(target, Logits):
        names = (*names, "bias")
    null = None
    if drawn:
        null = (torch.stack(drawn).sum(0) / real.sum(0)).movedim(1, 0)
    return Measured(names, torch.cat(parts, 2), torch.cat(totals, 1), null, error)


def loudest_neurons(
    plan: Outline,
    anatomy: Anatomy,
    tokens: TokenBatch,
    columns: Int[Tensor, "prompt pos"],
    real: Bool[Tensor, "prompt pos"],
    target: Target,
    *,
    count: int,
    batch: Batch,
    progress: bool | None,
) -> dict[int, list[int]]:
    """By layer, the neurons whose mean over prompts is largest in absolute value anywhere."""
    sums: dict[int, Tensor] = {}
    asked = (plan, anatomy, tokens, columns, real, batch, progress)
    for read in _reads(*asked, width=len(target), logits=False):
        mine = target.rows(read.rows)
        directions, _ = mine.directions(anatomy)
        scale, gone = read.scale(mine), ~read.real.to(directions.device)
        branches = [term for term in read.terms() if isinstance(term, Branch)]
        for layer, branch in zip(plan.mlp, branches, strict=True):
            found = (branch.along(directions) / scale)[: len(branch.unit_names)]
            total = found.masked_fill(gone, 0.0).sum(2)
            sums[layer] = sums.get(layer, 0.0) + total
    if not sums:
        return {}
    seen = real.sum(0).to(next(iter(sums.values())).device)
    loud = torch.stack([(sums[n] / seen).abs().flatten(1).amax(-1) for n in plan.mlp])
    order = loud.flatten().sort(descending=True, stable=True).indices[:count].tolist()
    chosen: dict[int, list[int]] = {}
    for place in sorted(order):
        chosen.setdefault(place // loud.shape[1], []).append(place % loud.shape[1])
    return chosen


def _reads(
    plan: Outline,
    anatomy: Anatomy,
    tokens: TokenBatch,
    columns: Int[Tensor, "prompt pos"],
    real: Bool[Tensor, "prompt pos"],
    batch: Batch,
    progress: bool | None,
    *,
    width: int,
    logits: bool,
) -> Iterator[_Read]:
    """Runs of a few prompts at a time; ``width`` targets are read of each part."""
    sites, n = plan.sites(), len(tokens)
    kept = sum(elements_of(anatomy, Site.parse(site), tokens.ids.shape[1]) for site in sites)
    heads = anatomy.n_heads if plan.by == "head" else 1
    each = len(plan.attn) * (heads + 2) * columns.shape[1] + anatomy.d_model
    laid_out = heads * min(columns.shape[1], width) * anatomy.d_model
    step = max(1, min(n, _AT_ONCE // (kept + width * each + laid_out)))
    step = step if batch == "auto" else batch
    last = columns.shape[1] == 1 and torch.equal(columns[:, 0], tokens.column(-1).cpu())
    kind: Literal["last", "all", "none"] = ("last" if last else "all") if logits else "none"
    for start in track(range(0, n, step), total=-(-n // step), what="attribution", show=progress):
        rows = slice(start, min(n, start + step))
        run = execute(anatomy, tokens.rows(rows), save=sites, logits=kind)
        yield _Read(plan, run, columns[rows], real[rows], rows)
