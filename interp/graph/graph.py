"""A model as a graph: what writes into the residual stream, and what reads it.

Every block reads the residual stream and adds to it, so what a node reads is the sum of what all
nodes before it wrote (Elhage et al. 2021). An *edge* is one term of one such sum. A head reads
three times: for its queries, its keys and its values.

- ``b_O`` belongs to no head, and is in every sum.
- In parallel blocks (GPT-NeoX, GPT-J) heads and MLP of a block read the same stream: there is no
  edge between them.
- Under grouped-query attention the key and value edges are each query head's own, though the heads
  of a group share the weights that read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import GraphError, nearest
from interp.graph.names import CHANNELS, Node, node_of, split_edge
from interp.graph.units import check_dictionaries, check_units
from interp.taps.anatomy import Anatomy

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """The nodes and edges of a model of one shape.

    Attributes:
        n_layers, n_heads: the model's.
        parallel: whether attention and MLP of a block read the same residual stream.
        pos_embed: whether position embeddings are added to the stream.
        mlps: whether its blocks have MLPs.
        units: neurons and features that are nodes of their own, ``"m2.n77"``; the MLP's node is
            then the rest of it.
        positions: groups of positions, each with edges of its own; the last is "other". Empty: an
            edge is one at all positions together.
    """

    n_layers: int
    n_heads: int
    parallel: bool = False
    pos_embed: bool = True
    mlps: bool = True
    units: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    sources: tuple[str, ...] = field(init=False)
    dests: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        units = tuple(str(node) for node in sorted(map(self._unit, self.units), key=_unit_order))
        object.__setattr__(self, "units", tuple(dict.fromkeys(units)))
        object.__setattr__(self, "sources", tuple(self._sources()))
        object.__setattr__(self, "dests", tuple(self._dests()))

    @classmethod
    def of(cls, model: Any, *, units: Iterable[str] = (), positions: Iterable[str] = ()) -> Graph:
        """The graph of a model.

        Args:
            model: a :class:`interp.Model`.
            units: neurons (``"m2.n77"``) that are nodes of their own, and, where a transcoder stands
                for the MLP (``with model.replaced(...)``), its features (``"m2.f12"``).
            positions: names of positions that the prompts define, or numbers among real tokens (-1).
                Edges are then counted at each of them, and at all "other" positions together.

        Raises:
            GraphError: the model's stream is not the sum of such nodes, with the reason.
        """
        anatomy: Anatomy = model.anatomy
        for point in ("embed", "resid_pre", "z", "attn_out", "q", "k", "v", "attn.input"):
            if point in anatomy.refused:
                raise GraphError(f"{model.name} has no graph of heads: {anatomy.refused[point]}.")
        mlps = anatomy.blocks[0].mlp is not None or anatomy.family.mlp is None
        if mlps and (reason := anatomy.refused.get("mlp_out") or anatomy.refused.get("mlp.input")):
            raise GraphError(f"{model.name} has no graph of heads and MLPs: {reason}.")
        check_dictionaries(anatomy, model.name)
        named = tuple(dict.fromkeys(map(str, _several(positions))))
        graph = cls(
            anatomy.n_layers, anatomy.n_heads, anatomy.parallel,
            "pos_embed" not in anatomy.refused, mlps, tuple(map(str, _several(units))),
            (*(name for name in named if name != "other"), "other") if named else (),
        )  # fmt: skip
        check_units(graph, anatomy)
        return graph

    @classmethod
    def shaped(cls, **shape: Any) -> Graph:
        """The graph that :attr:`shape` describes, without a model."""
        try:
            tuples = {k: tuple(v) for k, v in shape.items() if k in ("units", "positions")}
            return cls(**{**shape, **tuples})
        except TypeError as error:
            raise GraphError(f"{shape} is not the shape of a graph: {error}.") from None

    @property
    def shape(self) -> dict[str, Any]:
        """What makes this graph, as JSON values."""
        made: dict[str, Any] = {
            "n_layers": self.n_layers, "n_heads": self.n_heads, "parallel": self.parallel,
            "pos_embed": self.pos_embed, "mlps": self.mlps,
        }  # fmt: skip
        made |= {"units": list(self.units)} if self.units else {}
        return made | ({"positions": list(self.positions)} if self.positions else {})

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, {len(self.edges)} edges)"

    # -- nodes and edges -----------------------------------------------------------------

    def _unit(self, name: str) -> Node:
        node = Node.parse(name)
        layers = self.n_layers if self.mlps else 0
        if node.kind not in ("neuron", "feature") or not 0 <= (node.layer or 0) < layers:
            raise GraphError(f"{name!r} is no neuron or feature of this model's {layers} MLPs.")
        return node

    def _heads(self, layer: int) -> list[str]:
        return [f"a{layer}.h{head}" for head in range(self.n_heads)]

    def _mlps(self, layer: int) -> list[str]:
        own = [unit for unit in self.units if Node.parse(unit).layer == layer]
        return [f"m{layer}", *own] if self.mlps else []

    def _sources(self) -> Iterable[str]:
        yield from ("embed", "pos_embed") if self.pos_embed else ("embed",)
        for layer in range(self.n_layers):
            yield from self._heads(layer)
            yield from self._mlps(layer)

    def _dests(self) -> Iterable[str]:
        for layer in range(self.n_layers):
            for channel in CHANNELS:
                yield from (f"{head}<{channel}>" for head in self._heads(layer))
            yield from self._mlps(layer)
        yield "logits"

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node, in the order in which they write."""
        return (*self.sources, "logits")

    @cached_property
    def real(self) -> Bool[Tensor, "source dest"]:
        """Which pairs are edges."""
        before = torch.tensor([self._rank(source) for source in self.sources])
        at = torch.tensor([self._rank(node_of(dest)) for dest in self.dests])
        return before[:, None] < at[None, :]

    def _rank(self, name: str) -> int:
        """Nodes of one rank read the same stream."""
        node = Node.parse(name)
        if node.layer is None:
            return 2 * self.n_layers if node.kind == "logits" else -1
        return 2 * node.layer + (node.kind != "head" and not self.parallel)

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Every edge: destination by destination, sources in order, then positions."""
        found = [f"{self.sources[s]}->{self.dests[d]}" for d, s in self.real.T.nonzero().tolist()]
        if not self.positions:
            return tuple(found)
        return tuple(f"{edge}@{name}" for edge in found for name in self.positions)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {edge: i for i, edge in enumerate(self.edges)}

    # -- where a block's nodes stand -------------------------------------------------------

    def sources_before(self, layer: int) -> int:
        """How many sources write before a block."""
        return 1 + self.pos_embed + sum(
            self.n_heads + len(self._mlps(one)) for one in range(layer)
        )  # fmt: skip

    def heads_at(self, layer: int) -> slice:
        """Where a block's heads stand among the sources."""
        begin = self.sources_before(layer)
        return slice(begin, begin + self.n_heads)

    def mlps_at(self, layer: int) -> slice:
        """Where its MLP stands among the sources, and then the units that are nodes."""
        begin = self.heads_at(layer).stop
        return slice(begin, begin + len(self._mlps(layer)))

    def reads_at(self, layer: int) -> tuple[slice, slice, slice, slice]:
        """Where a block's queries, keys, values and MLP stand among the destinations."""
        begin = 0
        for one in range(layer):
            begin += 3 * self.n_heads + len(self._mlps(one))
        marks = [begin + n * self.n_heads for n in range(4)]
        last = marks[3] + len(self._mlps(layer))
        return (slice(marks[0], marks[1]), slice(marks[1], marks[2]), slice(marks[2], marks[3]),
                slice(marks[3], last))  # fmt: skip

    def layer_of(self, dest: int) -> int:
        """The block in which a destination reads; ``n_layers`` for the logits."""
        return self._layers[dest]

    @cached_property
    def _layers(self) -> list[int]:
        nodes = [Node.parse(node_of(dest)) for dest in self.dests]
        return [self.n_layers if node.layer is None else node.layer for node in nodes]

    # -- edges as a mask -----------------------------------------------------------------

    @cached_property
    def index(self) -> tuple[Tensor, ...]:
        """Where each of :attr:`edges` stands in a mask: ``mask[graph.index]`` is in their order."""
        dest, source = self.real.T.nonzero(as_tuple=True)
        if not self.positions:
            return source, dest
        n = len(self.positions)
        return (
            source.repeat_interleave(n),
            dest.repeat_interleave(n),
            torch.arange(n).repeat(len(dest)),
        )

    @cached_property
    def full(self) -> Bool[Tensor, "source dest *position"]:
        """The mask of every edge."""
        if not self.positions:
            return self.real.clone()
        return self.real[..., None].expand(-1, -1, len(self.positions)).clone()

    def number(self, edge: str) -> int:
        """Where an edge stands in :attr:`edges`.

        Raises:
            GraphError: there is no such edge; the nearest are named.
        """
        if edge in self._places:
            return self._places[edge]
        source, dest, position = split_edge(edge)
        canonical = f"{source}->{dest}" + (f"@{position}" if position else "")
        if canonical in self._places:
            return self._places[canonical]
        if self.positions and position is None and f"{canonical}@other" in self._places:
            hint = f"this graph's edges have positions: write '{canonical}@{self.positions[0]}'"
        elif source in self.sources and dest in self.dests and not position:
            hint = f"{source!r} writes nothing that {dest!r} reads: it comes later or beside it"
        else:
            hint = f"nearest: {nearest(edge, self.edges)}"
        raise GraphError(f"{edge!r} is not an edge of this graph; {hint}.")

    def mask(self, edges: Iterable[str]) -> Bool[Tensor, "source dest *position"]:
        """The mask that is true at these edges.

        Raises:
            GraphError: one of them is not an edge of this graph.
        """
        mask = torch.zeros_like(self.full)
        numbers = torch.tensor([self.number(edge) for edge in edges], dtype=torch.long)
        mask[tuple(axis[numbers] for axis in self.index)] = True
        return mask

    def names(self, mask: Bool[Tensor, "source dest *position"]) -> tuple[str, ...]:
        """The edges at which a mask is true, in the order of :attr:`edges`."""
        chosen = mask[self.index].nonzero().flatten().tolist()
        return tuple(self.edges[i] for i in chosen)


def _several(given: Any) -> Iterable[Any]:
    """One name, or one number, is a list of one."""
    return (given,) if isinstance(given, str | int) else given


def _unit_order(node: Node) -> tuple[int, str, int]:
    return node.layer or 0, node.kind, node.index or 0
