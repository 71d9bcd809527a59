"""Whether a circuit belongs to a model."""

from __future__ import annotations

from typing import Any, Literal

from interp.circuits.circuit import Circuit
from interp.circuits.fields import difference
from interp.errors import CircuitError, warn
from interp.graph import Graph

__all__ = ["check_fits"]


def check_fits(circuit: Circuit, model: Any) -> Literal["same", "other", "unknown"]:
    """Check that a model's graph is the circuit's, and compare the weights.

    Args:
        model: a :class:`interp.Model`.

    Returns:
        ``"same"`` weights as the circuit's; ``"other"`` weights, of which it warns; ``"unknown"``
        where the circuit does not say (published circuits).

    Raises:
        CircuitError: the model's graph is another one, and where they differ.
    """
    graph = Graph.of(model, units=circuit.graph.units, positions=circuit.positions)
    if graph.shape != circuit.shape:
        raise CircuitError(
            f"circuit {circuit.name!r} is of {circuit.model or 'a model'} with another graph than "
            f"{model.name!r}: {difference(circuit.shape, graph.shape)}. Load the model it was found in."
        )
    if circuit.weights_hash is None:
        return "unknown"
    if circuit.weights_hash == model.weights_hash:
        return "same"
    warn(
        f"circuit {circuit.name!r} was found in {circuit.model!r} with weights "
        f"{circuit.weights_hash[:12]}..., {model.name!r} has {model.weights_hash[:12]}...: what was "
        "measured of it need not hold here."
    )
    return "other"
