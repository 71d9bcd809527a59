"""Information-flow routes: which edges carry what the answer is read from, without any ablation.

What a destination reads is a sum, y = Σ c over the sources (and biases, which are nobody's). A term is
important if the sum comes nearer to nothing without it,

    importance(c, y) = max(0, |y|₁ - |y - c|₁) / Σ over sources of the same,

a share: the sources of one destination at one position sum to 1. No gradient, no metric and no
second prompt is needed, and **scores have no sign**.

*Routes* are followed from the columns whose logits the metric reads, backwards:

1. ``logits`` is read at those columns.
2. Where a destination is read, an edge whose importance exceeds ``threshold`` is on a route, and its
   source is on it at that column. An MLP then reads there.
3. A head at query i is a sum over key positions, f_{i→j} = pattern_ij · v_j W_O, and the share of each is
   measured in the same way. It reads values and keys at the columns j whose share, times the
   importance of the head at i, exceeds the threshold; its queries at i. The paper takes patterns as
   they are and has no edges into queries and keys: here those get what is read at their columns.

An edge's score is its mean importance over the columns at which its destination is on a route; 0
where it is on none, or below the threshold. Importances are not multiplied along a route (as in the
paper, where a route is a chain of edges above the threshold), so the score of an edge says how large
a part it is of what its destination reads, not of the answer.

At ``threshold=0`` the scores of each destination that any route reaches sum to 1. A threshold drops
edges and renormalises nothing.

Departures: the paper's vertices are states of the stream, where all sources but one are "the
residual"; here every source is a term of its own, as in hannamw/EAP-IG's
``get_scores_information_flow_routes``, which averages over all positions where we follow the
routes. A head is one term of what others read, not one for each key. Their tool clips proximities
at 1e-5 from below, so that every term has a share; here it is 0.

Source: Ferrando & Voita 2024 (arXiv:2403.00824), section 2; proximity from Ferrando et al. 2022
(arXiv:2203.04212).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.attribution.edges.trace import scored
from interp.direct.stream import heads_of
from interp.graph import Setting
from interp.graph.contributions import contributions, sites_read
from interp.graph.graph import Graph
from interp.graph.parts import Parts
from interp.runs.cache import Cache
from interp.runs.execute import execute
from interp.token_batch import TokenBatch

__all__ = ["by_flow", "flows", "importance", "proximity"]

#: Numbers that one difference may hold.
_PIECE = 2**22


def proximity(
    terms: Float[Tensor, "term *place d_model"], whole: Float[Tensor, "*place d_model"]
) -> Float[Tensor, "term *place"]:
    """max(0, |whole|₁ - |whole - term|₁): how much nearer to nothing the sum is without a term."""
    size, step = whole.abs().sum(-1), max(1, _PIECE // max(1, whole.numel()))
    found = [(size - (whole - some).abs().sum(-1)).clamp(min=0) for some in terms.split(step)]
    return torch.cat(found)


def importance(
    terms: Float[Tensor, "term *place d_model"], whole: Float[Tensor, "*place d_model"]
) -> Float[Tensor, "term *place"]:
    """The share of each term in its sum; all 0 where no term brings the sum nearer."""
    near = proximity(terms, whole)
    return torch.nan_to_num(near / near.sum(0, keepdim=True))


@torch.no_grad()
def by_flow(
    setting: Setting, rows: slice, tokens: TokenBatch, threshold: float
) -> tuple[Float[Tensor, "prompt source dest *position"], Float[Tensor, " prompt"]]:
    """Scores of some prompts' edges, and of the unedited run (which they do not depend on)."""
    prompts, at_answer = setting.prompts.subset(rows), setting.metric.positions == "answer"
    start = tokens.mask
    if at_answer:
        columns = torch.arange(tokens.ids.shape[1], device=start.device)
        start = start & (columns == prompts.answer_column.to(start.device)[:, None])
    groups = None if setting.groups is None else setting.groups[rows]
    found = flows(setting.graph, setting.parts, tokens, start, groups, threshold=threshold)
    run = execute(setting.parts.anatomy, tokens, logits="last" if at_answer else "all")
    return found, scored(setting, rows, run.logits)


@torch.no_grad()
def flows(
    graph: Graph,
    parts: Parts,
    tokens: TokenBatch,
    start: Bool[Tensor, "row pos"],
    groups: Int[Tensor, "row pos"] | None = None,
    *,
    threshold: float = 0.0,
) -> Float[Tensor, "row source dest *position"]:
    """The scores of all edges, for each of some prompts that run as one batch.

    Args:
        start: the columns whose logits are asked about.
        groups: the group of positions of each column, if the graph has positions.
        threshold: the importance that an edge must exceed to be on a route.
    """
    middle = [] if graph.parallel or not graph.mlps else ["L*.resid_mid"]
    save = [*sites_read(graph), "L*.resid_pre", *middle, "L-1.resid_post", "L*.pattern", "L*.v"]
    run = execute(parts.anatomy, tokens, save=list(dict.fromkeys(save)), logits="none",
                  rows_at_once=len(tokens))  # fmt: skip
    return _Routes(graph, parts, run.cache, tokens.mask, groups, threshold).follow(start)


@dataclass(frozen=True, eq=False)
class _Routes:
    """The routes of one run, followed from the last block to the first."""

    graph: Graph
    parts: Parts
    cache: Cache
    real: Bool[Tensor, "row pos"]
    groups: Int[Tensor, "row pos"] | None
    threshold: float

    @cached_property
    def written(self) -> Float[Tensor, "source row pos d_model"]:
        return contributions(self.graph, self.parts, self._read)

    def _read(self, point: str, layer: int | None) -> Tensor:
        return self.cache[point if layer is None else f"L{layer}.{point}"]

    def follow(self, start: Bool[Tensor, "row pos"]) -> Float[Tensor, "row source dest *position"]:
        graph, rows = self.graph, len(self.real)
        out = self.written.new_zeros(rows, *graph.full.shape)
        reached = self.written.new_zeros(self.written.shape[:3])  # the strongest edge onwards
        last = graph.n_layers - 1
        logits = slice(len(graph.dests) - 1, len(graph.dests))
        shares = self._shares(self.cache[f"L{last}.resid_post"], len(graph.sources))
        self._add(out, reached, shares, logits, (start & self.real)[None])
        for layer in range(last, -1, -1):
            *heads, mlps = graph.reads_at(layer)
            before, after = graph.sources_before(layer), graph.heads_at(layer).stop
            stream = self.cache[f"L{layer}.resid_pre"]
            shares = self._shares(stream, before)
            if graph.mlps:
                own = shares
                if not graph.parallel:
                    own = self._shares(self.cache[f"L{layer}.resid_mid"], after)
                self._add(out, reached, own, mlps, self._on(reached[graph.mlps_at(layer)]))
            onwards = reached[graph.heads_at(layer)]
            keys = self._keys(layer, onwards)
            for dests, read in zip(heads, (self._on(onwards), keys, keys), strict=True):
                self._add(out, reached, shares, dests, read)
        return out

    def _shares(self, stream: Tensor, before: int) -> Float[Tensor, "source row pos"]:
        return importance(self.written[:before], stream.to(self.written.dtype))

    def _on(self, strength: Float[Tensor, "node row pos"]) -> Bool[Tensor, "node row pos"]:
        return (strength > self.threshold) & self.real

    def _add(
        self,
        out: Float[Tensor, "row source dest *position"],
        reached: Float[Tensor, "source row pos"],
        shares: Float[Tensor, "source row pos"],
        dests: slice,
        read: Bool[Tensor, "dest row pos"],
    ) -> None:
        """Score the edges into some destinations that read one stream, and mark their sources."""
        kept = torch.where(shares > self.threshold, shares, 0.0)
        for dest, columns in zip(range(dests.start, dests.stop), read, strict=True):
            for group, chosen in self._grouped(columns):
                weights = chosen / chosen.sum(-1, keepdim=True).clamp(min=1)
                scores = torch.einsum("srp,rp->rs", kept, weights)
                own = out[:, : len(kept), dest]
                (own if group is None else own[..., group]).copy_(scores)
            reached[: len(kept)] = torch.maximum(reached[: len(kept)], kept * columns)

    def _grouped(
        self, columns: Bool[Tensor, "row pos"]
    ) -> Iterator[tuple[int | None, Float[Tensor, "row pos"]]]:
        """The columns as weights, for each group of positions with its number."""
        if self.groups is None:
            yield None, columns.to(self.written.dtype)
            return
        for group in range(len(self.graph.positions)):
            yield group, (columns & (self.groups == group)).to(self.written.dtype)

    def _keys(
        self, layer: int, onwards: Float[Tensor, "head row pos"]
    ) -> Bool[Tensor, "head row pos"]:
        """The columns whose values reach what is read of a head further on."""
        terms = self._terms(layer)
        pattern = self._read("pattern", layer).to(terms.dtype).transpose(0, 1)
        found = torch.zeros_like(onwards, dtype=torch.bool)
        for query in range(onwards.shape[-1]):
            strength = onwards[..., query]
            if not bool((strength > self.threshold).any()):
                continue
            moved = (pattern[..., query, :, None] * terms).movedim(2, 0)
            share = importance(moved, moved.sum(0)).movedim(0, 2)
            found |= share * strength[..., None] > self.threshold
        return found & self.real

    def _terms(self, layer: int) -> Float[Tensor, "head row pos d_model"]:
        """What each head would write of each column's value alone.

        A norm behind attention divides what each query gets by one number, which no share depends on.
        """
        anatomy = self.parts.anatomy
        values = self._read("v", layer).to(self.written.dtype)
        values = values.masked_fill(~self.real[..., None, None], 0.0)  # may be NaN at padding
        values = values.repeat_interleave(anatomy.n_heads // values.shape[2], 2)
        branch = heads_of(anatomy, layer, self._read("z", layer).to(self.written.dtype))
        whole = replace(branch, x=values, scale=None)
        return whole.only(range(anatomy.n_heads)).tensors()
