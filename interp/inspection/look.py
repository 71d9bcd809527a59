"""The second pass: examples of each feature, how it is distributed, and what fires with it.

Examples come from the top and from the rest: a feature that is one word at its maximum may be something
else below. So, as Bricken et al. 2023 ("Towards Monosemanticity", feature dashboards), the range from
zero to a feature's maximum is cut into equal intervals and a few tokens are drawn at random from each.

All of it is kept exactly while rows go by; the activations are not kept. Beside the features go
*random directions* that read the same activations: their strongest tokens are what a list of strongest
tokens looks like where no feature was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.inspection.chosen import Chosen, places
from interp.results import Provenance
from interp.store.rows import Rows
from interp.surveys.kept import Block, Kept
from interp.surveys.top import lots
from interp.surveys.units import pieces

__all__ = ["Look", "Looked"]


@dataclass(frozen=True, eq=False)
class Looked:
    """What the second pass has seen so far.

    Attributes:
        count, total, squares: tokens at which a feature is active; sum of its activations; of squares.
        most: its largest activation.
        counts: activations in each of equal bins from 0 to ``most`` of the first pass.
        products: sums of products of two features' activations; None where there are too many.
        best: the strongest tokens, at most one of each document.
        drawn: of each interval, lowest first, tokens drawn at random.
        random: the strongest tokens of random directions.
        vocabulary: how often each token was read.
        tail, waiting: the last rows, and the first of them whose window was not whole.
    """

    count: Int[Tensor, " feature"]
    total: Float[Tensor, " feature"]
    squares: Float[Tensor, " feature"]
    most: Float[Tensor, " feature"]
    counts: Int[Tensor, "feature bin"]
    products: Float[Tensor, "feature feature"] | None
    best: Kept
    drawn: tuple[Kept, ...]
    random: Kept
    vocabulary: Int[Tensor, " token"]
    tail: Block
    waiting: int

    @property
    def n_tokens(self) -> int:
        return self.tail.first + len(self.tail)


@dataclass(frozen=True, eq=False)
class Look:
    """A close look at some features, as a plan for :func:`interp.surveys.survey`.

    Attributes:
        chosen: the features.
        most: their maxima, from the first pass.
        directions: of each part random directions that read what it reads.
        k: strongest tokens of each feature.
        window: tokens shown before and behind.
        intervals, sampled: intervals up to the maximum, and tokens drawn from each.
        bins: of the histograms.
        together: whether products of features are summed.
        seed: of what is drawn.
        record: of the call.
    """

    chosen: Chosen
    most: Float[Tensor, " feature"]
    directions: tuple[Float[Tensor, "control d_in"], ...]
    k: int
    window: tuple[int, int]
    intervals: int
    sampled: int
    bins: int
    together: bool
    seed: int
    record: dict[str, Any]
    sites: tuple[str, ...] = ()

    def on(self, sites: Sequence[str]) -> Look:
        return replace(self, sites=places(self.chosen.dictionary, sites))

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.sites))

    def call(self) -> dict[str, Any]:
        return self.record

    def update(self, state: Looked | None, rows: Rows) -> Looked:
        state = self._start() if state is None else state
        for part in pieces(rows, max(self.chosen.width, len(self.chosen))):
            state = self._step(state, part)
        return state

    def result(self, state: Looked, provenance: Provenance) -> tuple[Looked, Provenance]:
        return self._judged(state, state.tail, len(state.tail)), provenance

    # -- one chunk ---------------------------------------------------------------------

    def _start(self) -> Looked:
        n, device = len(self.chosen), self.chosen.device
        wide, span = torch.zeros(n, dtype=torch.float64, device=device), sum(self.window) + 1
        none = torch.zeros(0, dtype=torch.int64, device=device)
        controls = sum(len(rows) for rows in self.directions)
        return Looked(
            count=wide.long(), total=wide, squares=wide, most=wide.float(),
            counts=none.new_zeros(n, self.bins),
            products=torch.zeros(n, n, dtype=torch.float64, device=device) if self.together else None,
            best=Kept.empty(n, self.k, span, device),
            drawn=(Kept.empty(n, self.sampled, span, device),) * (self.intervals if self.sampled else 0),
            random=Kept.empty(controls, self.k, 1, device),
            vocabulary=none, tail=Block(0, wide.float()[None][:0], none, none, none), waiting=0,
        )  # fmt: skip

    def _step(self, state: Looked, rows: Rows) -> Looked:
        values = self.chosen(rows, self.sites)
        where = [
            x.to(values.device, torch.int64) for x in (rows.tokens, rows.document, rows.position)
        ]
        state = self._counted(state, values, where[0])
        state = replace(state, random=self._random(state, rows, where))
        block = state.tail.then(Block(state.n_tokens, values, *where))
        return self._judged(state, block, max(state.waiting, len(block) - self.window[1]))

    def _counted(self, state: Looked, values: Tensor, tokens: Tensor) -> Looked:
        row, unit = values.nonzero(as_tuple=True)
        active = values[row, unit].double()
        place = unit * self.bins + self._level(active, unit, self.bins)
        counts = place.bincount(minlength=state.counts.numel()).view_as(state.counts)
        sums = [torch.zeros_like(state.total).index_add(0, unit, x) for x in (active, active**2)]
        length = max(len(state.vocabulary), int(tokens.max()) + 1)
        seen = tokens.bincount(minlength=length)
        seen[: len(state.vocabulary)] += state.vocabulary
        products = state.products
        if products is not None:
            products = products + _products(values, row, unit)
        return replace(
            state, count=state.count + unit.bincount(minlength=len(state.count)),
            total=state.total + sums[0], squares=state.squares + sums[1],
            most=state.most.maximum(values.amax(0)), counts=state.counts + counts,
            products=products, vocabulary=seen,
        )  # fmt: skip

    def _level(self, active: Tensor, unit: Tensor, n: int) -> Int[Tensor, " entry"]:
        """Which of ``n`` equal steps up to the maximum, the upper end included in each."""
        share = active / self.most.double()[unit].clamp(min=1e-300)
        return ((share * n).ceil().long() - 1).clamp(0, n - 1)

    def _random(self, state: Looked, rows: Rows, where: list[Tensor]) -> Kept:
        """The strongest tokens of the random directions, at most one of each document."""
        if not len(state.random.score):
            return state.random
        parts = [
            self.chosen.read(rows, site).float() @ directions.T
            for site, directions in zip(self.sites, self.directions, strict=True)
        ]
        block = Block(state.n_tokens, torch.cat(parts, 1).to(self.chosen.device), *where)
        return state.random.with_rows(block, block.values, 0, before=0, per_document=True)

    def _judged(self, state: Looked, block: Block, stop: int) -> Looked:
        """Judge the rows before ``stop``, and keep as many as windows still to come reach back to."""
        start, before = state.waiting, self.window[0]
        best, drawn = state.best, list(state.drawn)
        if stop > start:
            row, unit = block.values[start:stop].nonzero(as_tuple=True)
            row = row + start
            active = block.values[row, unit]
            best = best.with_entries(block, row, unit, active, before=before, per_document=True)
            level = self._level(active.double(), unit, max(1, self.intervals))
            lot = self._lots(block.first + row, unit)
            for i, kept in enumerate(drawn):
                own = level == i
                drawn[i] = kept.with_entries(
                    block, row[own], unit[own], lot[own], before=before, per_document=False
                )
        spare = max(0, stop - before)
        return replace(
            state, best=best, drawn=tuple(drawn), tail=block.behind(spare), waiting=stop - spare
        )

    def _lots(self, row: Tensor, unit: Tensor) -> Float[Tensor, " entry"]:
        """A number for each token and feature, else all features would draw the same tokens."""
        own = torch.tensor(self.chosen.pairs, device=row.device)
        turn = lots(own[:, 1] + own[:, 0] * self.chosen.dictionary.d_sae, self.seed + 1)
        return (lots(row, self.seed) + turn[unit]) % 1


def _products(values: Tensor, row: Tensor, unit: Tensor) -> Float[Tensor, "feature feature"]:
    """``valuesᵀ @ values``; where few are active, from those alone."""
    if len(row) > 0.1 * values.numel():
        return (values.T @ values).double()
    shape = (values.shape[1], len(values))
    active = torch.sparse_coo_tensor(
        torch.stack([unit, row]), values[row, unit], shape, check_invariants=False
    )
    return torch.sparse.mm(active, values).double()
