"""Edges into queries and keys by the exact softmax.

With an edge u → q ablated, the head's queries are what its projection makes of the norm of
(stream - u + ablated u). One block runs again with them in the place of its own queries, as far as
its attention scores, for many sources at once; positions, scale, soft-cap and masks are the model's
own. Only what comes behind the pattern is linearised. See :mod:`interp.attribution.softmax` for nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.attribution.edges.trace import Trace
from interp.engine.base import Base, run_base
from interp.engine.kernels import replay_kernels
from interp.engine.replay import read_block
from interp.engine.spots import Spot
from interp.engine.where import Tail
from interp.engine.work import tokens_at_once
from interp.graph import Setting
from interp.runs.edits import Replace
from interp.runs.execute import execute
from interp.sites import Site
from interp.taps.attention import weights_of
from interp.taps.points import Key
from interp.token_batch import TokenBatch

__all__ = ["Attention"]

_CHANNELS: Final = {"q": 0, "k": 1}


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of some prompts' run, ready to be run again.

    Attributes:
        base: the run, ready to be replayed block by block; None: whole runs.
        seen: its streams, queries and keys.
        held: what norms divide by, if they are frozen.
    """

    setting: Setting
    tokens: TokenBatch
    base: Base | None
    seen: Mapping[Key, Tensor]
    held: Mapping[Key, Tensor]

    @classmethod
    def of(cls, setting: Setting, tokens: TokenBatch, run: Trace) -> Attention:
        anatomy = setting.model.anatomy
        base = run_base(anatomy, tokens, logits=False) if setting.reason is None else None
        seen = {key: x.detach() for key, x in run.seen.items() if key[0] in ("resid_pre", "q", "k")}
        return cls(setting, tokens, base, seen, run.scales())

    @torch.no_grad()
    def effects(
        self,
        layer: int,
        change: Float[Tensor, "source prompt pos d_model"],
        slopes: Float[Tensor, "drop prompt head query key"],
        groups: Int[Tensor, "prompt pos"] | None,
    ) -> Iterator[tuple[slice, slice, Float[Tensor, "drop prompt source head *position"]]]:
        """What ablating edges into a block's queries and keys does by way of its patterns.

        Args:
            change: what each source's term changes by.
            slopes: ∂metric/∂pattern, in several versions.

        Returns:
            Some sources, some destinations, and the effect of each edge between them.
        """
        graph = self.setting.graph
        slopes = torch.where(self._real, slopes, 0.0).double()
        count = graph.heads_at(layer).start
        width = self.tokens.ids.shape[1]
        room = tokens_at_once(self.setting.model.anatomy, "auto", width)
        step = max(1, room // (len(self.tokens) * width))
        for point, channel in _CHANNELS.items():
            dests = graph.reads_at(layer)[channel]
            old = self._scores(layer, point, self._own(point, layer)[None])
            for low in range(0, count, step):
                some = slice(low, min(low + step, count))
                new = self._projected(layer, channel, change[some])
                if self._heads_apart:
                    scores = self._scores(layer, point, new)
                    yield some, dests, self._effect(point, old, scores, slopes, groups)
                    continue
                for head in range(graph.n_heads):
                    alone = self._own(point, layer).expand_as(new).clone()
                    alone[..., head, :] = new[..., head, :]
                    scores = self._scores(layer, point, alone)
                    own = self._effect(point, old, scores, slopes, groups)
                    place = slice(dests.start + head, dests.start + head + 1)
                    yield some, place, own.sum(3, keepdim=True)

    # -- queries and keys ------------------------------------------------------------------

    @cached_property
    def _real(self) -> Bool[Tensor, "prompt 1 query 1"]:
        """Rows of patterns that belong to tokens; others may be NaN."""
        return self.tokens.mask[:, None, :, None]

    def _own(self, point: str, layer: int) -> Float[Tensor, "prompt pos some d_head"]:
        """The run's queries, or keys once for each group."""
        anatomy, x = self.setting.model.anatomy, self.seen[point, layer]
        count = anatomy.n_heads if point == "q" else anatomy.n_kv_heads
        return x[:, :, :: x.shape[2] // count]

    def _projected(
        self, layer: int, channel: int, change: Float[Tensor, "cell prompt pos d_model"]
    ) -> Float[Tensor, "cell prompt pos some d_head"]:
        """Queries or keys of streams that have changed."""
        parts, anatomy = self.setting.parts, self.setting.model.anatomy
        stream = self.seen["resid_pre", layer]
        held = self.held.get(("ln1.scale", layer))
        x = (stream + change).to(stream.dtype)
        inner = parts.normed(parts.before_attention(layer), x, held)
        matrix, bias = parts.projection(layer, channel)
        count = anatomy.n_heads if channel == 0 else anatomy.n_kv_heads
        own = slice(None, None, anatomy.n_heads // count)
        return torch.einsum("cbpd,hde->cbphe", inner, matrix[own]) + bias[own]

    @cached_property
    def _heads_apart(self) -> bool:
        """Whether a head's scores depend on its own queries alone: not if one norm spans them."""
        own = self._own("q", 0)
        other = own.clone()
        other[:, :, 0] = 2 * own[:, :, 0] + 1
        before, after = self._scores(0, "q", torch.stack([own, other]))
        rest = self._real.expand_as(before)[:, 1:]
        return torch.equal(before[:, 1:][rest], after[:, 1:][rest])

    def _scores(
        self, layer: int, point: str, new: Float[Tensor, "cell prompt pos some d_head"]
    ) -> Float[Tensor, "cell prompt head query key"]:
        """The attention scores with other queries, or other keys."""
        anatomy, n = self.setting.model.anatomy, len(new)
        if self.base is None:
            rows = self.tokens.rows(list(range(len(self.tokens))) * n)
            saved = Site.parse(f"L{layer}.attn_scores")
            run = execute(anatomy, rows, save=[saved], logits="none", rows_at_once=len(rows),
                          edit={f"L{layer}.{point}": Replace(new.flatten(0, 1))})  # fmt: skip
            return run.cache[saved].unflatten(0, (n, -1))
        spots = [Spot(Site.parse(f"L{layer}.{point}")) for _ in range(n)]
        values = dict(zip(spots, new, strict=True))
        x = Tail(0, n).take(self.base.resid[layer], 1)
        with replay_kernels(anatomy):
            found = read_block(self.base, layer, x, [(spot,) for spot in spots],
                               values.__getitem__, ["attn_scores"])  # fmt: skip
        return found["attn_scores"].unflatten(0, (n, -1))

    # -- patterns --------------------------------------------------------------------------

    def _effect(
        self,
        point: str,
        old: Float[Tensor, "1 prompt head query key"],
        new: Float[Tensor, "cell prompt head query key"],
        slopes: Float[Tensor, "drop prompt head query key"],
        groups: Int[Tensor, "prompt pos"] | None,
    ) -> Float[Tensor, "drop prompt cell head *position"]:
        """(New pattern - old pattern) · slope; for each group, that of its queries or keys alone."""
        if groups is None:
            return torch.einsum("cbhqk,jbhqk->jbch", self._change(old, new), slopes)
        found: Sequence[Tensor]
        names = range(len(self.setting.graph.positions))
        if point == "q":
            each = torch.einsum("cbhqk,jbhqk->jbchq", self._change(old, new), slopes)
            found = [(each * (groups == n)[:, None, None]).sum(-1) for n in names]
        else:
            here = [(groups == n)[:, None, None, :] for n in names]
            found = [
                torch.einsum(
                    "cbhqk,jbhqk->jbch", self._change(old, torch.where(own, new, old)), slopes
                )
                for own in here
            ]  # fmt: skip
        return torch.stack(found, -1)

    def _change(self, old: Tensor, new: Tensor) -> Float[Tensor, "cell prompt head query key"]:
        weighting = self.setting.model.anatomy.weighting
        change = weights_of(weighting, new.double()) - weights_of(weighting, old.double())
        return torch.where(self._real, change, 0.0)
