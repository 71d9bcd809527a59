"""Neurons that are nodes of their own: each reads its own stream through the whole MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.graph.names import Node
from interp.taps.points import Key

if TYPE_CHECKING:
    from interp.graph.stack import Stack

__all__ = ["Units"]


class Units:
    """The neurons of one MLP that are nodes.

    What a neuron is when its edges are ablated is found by running the MLP's own module on what the
    neuron reads; then it takes its place among the activations of the MLP's run.

    Attributes:
        inside: whether such a run is under way, and the hooks it calls are to look on.
    """

    def __init__(self, stack: Stack, layer: int, neurons: list[int]) -> None:
        self._stack, self._layer, self._neurons = stack, layer, neurons
        self.inside = False
        self.post: Any = None
        self._own: list[tuple[int, Tensor, Tensor]] = []  # neuron, variants, activations

    @classmethod
    def of(cls, stack: Stack, layer: int) -> Units | None:
        """None where the MLP is one node."""
        nodes = [Node.parse(unit) for unit in stack.graph.units]
        own = [node.index for node in nodes if node.layer == layer and node.index is not None]
        return cls(stack, layer, own) if own else None

    def functions(self) -> dict[Key, Callable[[Tensor], Tensor]]:
        return {("mlp_post", self._layer): self._activations}

    def run(self) -> None:
        """Find the activations of neurons whose edges are ablated."""
        stack, layer = self._stack, self._layer
        dests = stack.graph.reads_at(layer)[3]
        mlp: Any = stack.parts.anatomy.blocks[layer].mlp
        self._own = []
        for place, neuron in enumerate(self._neurons, dests.start + 1):
            found = stack.losses(slice(place, place + 1))
            if found is None:
                continue
            x = stack.normed(layer, found, mlp=True)
            self.inside = True
            try:
                mlp(x.flatten(0, 1))
            finally:
                self.inside = False
            own = self.post[..., neuron].unflatten(0, (len(found.variant), -1))
            self._own.append((neuron, found.variant, own))

    def _activations(self, x: Tensor) -> Tensor:
        if not self.inside and self._own:
            x = x.unflatten(0, (self._stack.variants, -1)).clone()
            for neuron, variant, own in self._own:
                x[variant, :, :, neuron] = own
            x = x.flatten(0, 1)
        self.post = x
        return x
