"""Many variants of a run through the blocks together, each with edges of its own ablated.

A node of the run reads the residual stream less what its ablated edges lose: for an edge from u,
what u writes *in this variant* minus u's ablated value. So everything is recomputed, norms
included, and a variant with nothing ablated is the run itself. Edits enter the model's own modules:
queries, keys and values at their projections, an MLP at its input, the logits at the last stream.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from jaxtyping import Float, Int
from torch import Tensor

from interp.graph.contributions import mlp_and_units
from interp.graph.grouped import by_query_head, check_groups, tells_heads_apart
from interp.graph.losses import Losses, Written, losses
from interp.graph.slab import Slab
from interp.graph.units import Units
from interp.taps.points import Key

__all__ = ["Stack"]

Fn = Callable[[Tensor], Tensor]


class Stack:
    """Variants × prompts on their way through the blocks.

    Args:
        removed: the share of each edge that is ablated; 0 where there is no edge.
        first: the first block that reads an ablated edge; earlier sources write what they write in
            the run itself.
        grad: every edge counts as ablated, if by a share of 0, so that scores have a derivative
            with respect to each share.
    """

    def __init__(
        self,
        slab: Slab,
        removed: Float[Tensor, "variant source dest *position"],
        first: int,
        *,
        grad: bool = False,
    ) -> None:
        self.slab, self.graph, self.parts = slab, slab.graph, slab.parts
        self.removed = removed
        self.variants = removed.shape[0]
        begin = self.graph.sources_before(first)
        self.written = [Written(0, slab.change[None, :begin])]
        self.stream: Tensor | None = None  # what the sublayer at hand reads
        self._everywhere = self.graph.real.to(removed.device) if grad else None
        ablates = (removed != 0).flatten(3).any(-1) if removed.dim() > 3 else removed != 0
        self._ablates = ablates.any(0) if self._everywhere is None else self._everywhere

    def at(self, columns: Int[Tensor, " prompt"]) -> Stack:
        """The same at one column of each prompt: what is read of the last block, or behind it."""
        own = copy(self)
        own.slab = self.slab.at(columns)
        own.written = [piece.at(columns) for piece in self.written]
        return own

    def functions(self, layer: int, channels: str = "qkv") -> dict[Key, Fn]:
        """What stands at the sites of a block; of queries, keys and values at those of ``channels``."""
        graph, anatomy = self.graph, self.parts.anatomy
        *heads, mlps = graph.reads_at(layer)
        found: dict[Key, Fn] = {("resid_pre", layer): self._see}
        for key in (("ln1.scale", layer), ("ln2.scale", layer)):
            if key in self.slab.scales:
                found[key] = self._hold(self.slab.scales[key])
        reads = [self.ablates(part) for part in heads]
        grouped = tells_heads_apart(anatomy) and anatomy.n_kv_heads != anatomy.n_heads
        grouped = grouped and (reads[1] or reads[2])  # keys and values then have as many heads
        for channel, point in enumerate("qkv"):
            if point in channels and (reads[channel] or (grouped and channel > 0)):
                found[point, layer] = self._head_reads(layer, channel, heads[channel])
        if self._ablates[graph.heads_at(layer)].any():
            found["z", layer] = self._heads_write(layer)
        if graph.mlps and not graph.parallel:
            found["resid_mid", layer] = self._see
        units = Units.of(self, layer)
        if self.ablates(mlps):
            found["mlp.input", layer] = self._mlp_reads(layer, mlps, units)
        found |= units.functions() if units is not None else {}
        if self._ablates[graph.mlps_at(layer)].any():
            found["mlp_out", layer] = self._mlp_writes(layer, units)
        return found

    def ablates(self, dests: slice) -> bool:
        """Whether any edge into these is ablated in any variant."""
        return bool(self._ablates[:, dests].any())

    # -- reading -------------------------------------------------------------------------

    def _see(self, x: Tensor) -> Tensor:
        self.stream = x
        return x

    def _hold(self, scale: Float[Tensor, "prompt pos 1"]) -> Fn:
        return lambda own: scale.repeat(self.variants, 1, 1).to(own.dtype)

    def losses(self, dests: slice) -> Losses | None:
        every = None if self._everywhere is None else self._everywhere[:, dests]
        return losses(self.removed[:, :, dests], self.written, self.slab.groups, everywhere=every)

    def read_by(self, found: Losses) -> Float[Tensor, "reader prompt pos d"]:
        """What readers with ablated edges read: the stream less what they lose."""
        stream = self.stream
        assert stream is not None  # every function that reads comes after resid_pre
        whole = stream.unflatten(0, (self.variants, -1))
        return (whole[found.variant] - found.lost).to(stream.dtype)

    def normed(self, layer: int, found: Losses, *, mlp: bool) -> Tensor:
        """What they read, behind the norm of their sublayer."""
        before = self.parts.before_attention(layer)
        norm = self.parts.before_mlp(layer) if mlp else before
        name = "ln1.scale" if norm is before else "ln2.scale"
        held = self.slab.scales.get((name, layer))
        return self.parts.normed(norm, self.read_by(found), held)

    def _head_reads(self, layer: int, channel: int, dests: slice) -> Fn:
        apart = channel == 0 or tells_heads_apart(self.parts.anatomy)
        step = 1 if apart else check_groups(self.parts.anatomy, self.removed[:, :, dests])

        def read(x: Float[Tensor, "row pos some d_head"]) -> Tensor:
            x = by_query_head(x, self.graph.n_heads) if apart else x
            found = self.losses(slice(dests.start, dests.stop, step))
            if found is None:
                return x
            inner = self.normed(layer, found, mlp=False)
            out = x.unflatten(0, (self.variants, -1)).clone()
            own = self.parts.project(layer, channel, found.dest * step, inner)
            out[found.variant, :, :, found.dest] = own.to(x.dtype)
            return out.flatten(0, 1)

        return read

    def _mlp_reads(self, layer: int, dests: slice, units: Units | None) -> Fn:
        def read(x: Float[Tensor, "row pos d_model"]) -> Tensor:
            if units is not None:
                if units.inside:
                    return x
                units.run()
            found = self.losses(slice(dests.start, dests.start + 1))
            if found is None:
                return x
            out = x.unflatten(0, (self.variants, -1)).clone()
            out[found.variant] = self.normed(layer, found, mlp=True).to(x.dtype)
            return out.flatten(0, 1)

        return read

    def logits_read(self, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """The last stream, as the logits read it."""
        self.stream = x
        last = len(self.graph.dests) - 1
        found = self.losses(slice(last, last + 1))
        if found is None:
            return x
        out = x.unflatten(0, (self.variants, -1)).clone()
        out[found.variant] = self.read_by(found)
        return out.flatten(0, 1)

    # -- writing -------------------------------------------------------------------------

    def _write(self, sources: slice, written: Float[Tensor, "source row pos d"]) -> None:
        if sources.start < self.written[0].stop:
            return  # it is the run's own
        ablated = self.slab.ablated
        own = written.unflatten(1, (self.variants, -1)).transpose(0, 1)
        change = own - (ablated[sources] if ablated.dim() else ablated)
        self.written.append(Written(sources.start, change))

    def _heads_write(self, layer: int) -> Fn:
        def write(z: Float[Tensor, "row pos head d_head"]) -> Tensor:
            self._write(self.graph.heads_at(layer), self.parts.heads(layer, z))
            return z

        return write

    def _mlp_writes(self, layer: int, units: Units | None) -> Fn:
        def write(x: Float[Tensor, "row pos d_model"]) -> Tensor:
            if units is not None and units.inside:
                return x
            seen = {"mlp_out": x} | ({} if units is None else {units.point: units.post})
            own = mlp_and_units(self.graph, self.parts, layer, lambda point, _: seen[point])
            self._write(self.graph.mlps_at(layer), own)
            return x

        return write
