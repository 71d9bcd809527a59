"""Neurons and features that are nodes of their own: each reads its own stream through the whole MLP.

Features are those of a transcoder that stands in the place of an MLP (``with model.replaced(...)``):
what one writes is its activation times its row of the decoder, and the MLP's node is all else that the
transcoder writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.errors import GraphError
from interp.graph.names import Node

if TYPE_CHECKING:
    from interp.graph.graph import Graph
    from interp.graph.stack import Stack
    from interp.taps.anatomy import Anatomy
    from interp.taps.points import Key
    from interp.taps.splices import Splice

__all__ = ["Units", "check_dictionaries", "check_units", "transcoder_at", "units_at"]

#: Where the activations of units are, by their kind.
_POINTS = {"neuron": "mlp_post", "feature": "mlp"}


def units_at(graph: Graph, layer: int) -> tuple[str, list[int]]:
    """The units of a block that are nodes, and the point at which their activations are."""
    nodes = [node for node in map(Node.parse, graph.units) if node.layer == layer]
    point = _POINTS[nodes[0].kind] if nodes else ""
    return point, [node.index for node in nodes if node.index is not None]


def transcoder_at(anatomy: Anatomy, layer: int) -> Splice | None:
    """The transcoder that stands in the place of a block's MLP in this run."""
    return next((one for one in anatomy.splices if ("mlp", layer) in one.features), None)


def check_dictionaries(anatomy: Anatomy, name: str) -> None:
    """Whether each node still reads the stream alone, with the dictionaries that stand.

    Raises:
        GraphError: one writes elsewhere than at the MLP that it reads at, or reads another tensor.
    """
    for one in anatomy.splices:
        for read, write in zip(one.reads, one.writes, strict=True):
            apart = read != write and (read, write) != (
                ("mlp.input", read[1]),
                ("mlp_out", read[1]),
            )
            if apart or len(one.reads) > 1:
                raise GraphError(
                    f"{name} has no graph: {one.name} reads L{read[1]}.{read[0]} and writes "
                    f"L{write[1]}.{write[0]}{' and behind' if len(one.reads) > 1 else ''}, which is no "
                    "edge between nodes. Expected transcoders of one layer, from mlp.input to mlp_out."
                )


def check_units(graph: Graph, anatomy: Anatomy) -> None:
    """Whether this run has the units that are to be nodes.

    Raises:
        GraphError: it does not, or they do not write what the MLP's node would share with them.
    """
    for layer in range(graph.n_layers):
        kinds = {n.kind for n in map(Node.parse, graph.units) if n.layer == layer}
        point, own = units_at(graph, layer)
        if not own:
            continue
        named, standing = (
            f"m{layer}.{point and sorted(kinds)[0][0]}{own[0]}",
            transcoder_at(anatomy, layer),
        )
        written = [one.name for one in anatomy.splices if ("mlp_out", layer) in one.writes]
        if len(kinds) > 1:
            raise GraphError(
                f"block {layer} is to have neurons and features as nodes, and both say what one MLP "
                "writes: expected units of one kind in each block."
            )
        if point == "mlp" and (standing is None or len(written) > 1):
            raise GraphError(
                f"{named!r} is a feature, and "
                + (f"no transcoder stands for the MLP of block {layer}: put this call in a block "
                   "'with model.replaced(transcoder):'." if standing is None else
                   f"{' and '.join(written)} write what the MLP of block {layer} adds: expected one.")
            )  # fmt: skip
        if point == "mlp_post" and written:
            raise GraphError(
                f"{named!r} is a neuron, and {written[0]} writes what the MLP of block {layer} adds in this "
                f"run: its features can be nodes ('m{layer}.f0'), its neurons cannot."
            )
        if point == "mlp_post" and (reason := _no_neurons(anatomy)):
            raise GraphError(f"{named!r} cannot be a node of this model: {reason}.")
        width = anatomy.d_mlp if standing is None else standing.d_sae
        if width is not None and max(own) >= width:
            raise GraphError(
                f"there is no 'm{layer}.{named.split('.')[1][0]}{max(own)}': block {layer} has {width} "
                f"{'neurons' if point == 'mlp_post' else 'features'}, 0 to {width - 1}."
            )


def _no_neurons(anatomy: Anatomy) -> str | None:
    if anatomy.family.mlp is None:
        return (
            f"in models of type {anatomy.name!r} the MLP is not a module that can be run by itself"
        )
    return anatomy.refused.get("mlp_post")


class Units:
    """The neurons or features of one MLP that are nodes.

    What a unit is when its edges are ablated is found by running the MLP's own module on what the
    unit reads; then it takes its place among the activations of the MLP's run.

    Attributes:
        point: where those activations are.
        inside: whether such a run is under way, and the hooks it calls are to look on.
    """

    def __init__(self, stack: Stack, layer: int, point: str, units: list[int]) -> None:
        self._stack, self._layer, self._units, self.point = stack, layer, units, point
        self.inside = False
        self.post: Any = None
        self._own: list[tuple[int, Tensor, Tensor]] = []  # unit, variants, activations

    @classmethod
    def of(cls, stack: Stack, layer: int) -> Units | None:
        """None where the MLP is one node."""
        point, own = units_at(stack.graph, layer)
        return cls(stack, layer, point, own) if own else None

    def functions(self) -> dict[Key, Callable[[Tensor], Tensor]]:
        return {(self.point, self._layer): self._activations}

    def run(self) -> None:
        """Find the activations of units whose edges are ablated."""
        stack, layer = self._stack, self._layer
        dests, anatomy = stack.graph.reads_at(layer)[3], stack.parts.anatomy
        mlp: Any = anatomy.blocks[layer].mlp
        self._own = []
        for place, unit in enumerate(self._units, dests.start + 1):
            found = stack.losses(slice(place, place + 1))
            if found is None:
                continue
            x = stack.normed(layer, found, mlp=True).flatten(0, 1)
            self.inside = True
            try:
                _ = mlp(x, 0 * x) if anatomy.family.adds_residual else mlp(x)
            finally:
                self.inside = False
            own = self.post[..., unit].unflatten(0, (len(found.variant), -1))
            self._own.append((unit, found.variant, own))

    def _activations(self, x: Tensor) -> Tensor:
        if not self.inside and self._own:
            x = x.unflatten(0, (self._stack.variants, -1)).clone()
            for unit, variant, own in self._own:
                x[variant, :, :, unit] = own
            x = x.flatten(0, 1)
        self.post = x
        return x
