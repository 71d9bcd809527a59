"""Does a circuit meet what it was made for: prompts it has not seen, and the weights it came from?"""

from __future__ import annotations

import hashlib
from typing import Any

from interp.circuits.fields import difference
from interp.errors import CircuitError, warn
from interp.graph import Graph

__all__ = ["check_graph", "check_prompts", "check_weights", "row_hashes"]

_DIGITS = 12


def row_hashes(prompts: Any) -> tuple[str, ...]:
    """A short digest of each clean prompt's real tokens, wherever its padding stands.

    Kept as ``rows`` among a circuit's ``prompts``, they tell whether other prompts overlap.
    """
    batch = prompts.clean
    rows = (ids[mask].tolist() for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True))
    return tuple(hashlib.sha256(str(row).encode()).hexdigest()[:_DIGITS] for row in rows)


def check_prompts(circuit: Any, prompts: Any) -> int:
    """Warn if a circuit is asked about prompts that it was found on; how many of them.

    Compares the hash of the whole and, where the circuit keeps them, of each row.
    """
    known = dict(circuit.prompts or {})
    provenance = getattr(circuit, "provenance", None)
    wholes = {known.get("hash"), getattr(provenance, "prompts_hash", None)} - {None}
    seen = set(known.get("rows") or ())
    if prompts.hash in wholes:
        n = len(prompts)
    else:
        n = sum(row in seen for row in row_hashes(prompts)) if seen else 0
    if n:
        warn(
            f"{n} of these {len(prompts)} prompts are among those that {circuit.name!r} was found "
            "on: what is measured on them flatters it. Split first, with prompts.split(0.5), or draw "
            "others with another seed."
        )
    return n


def check_graph(circuit: Any, model: Any, graph: Graph) -> None:
    """See that a circuit is of this graph.

    Raises:
        CircuitError: it is of a model of another shape.
    """
    if circuit.shape != graph.shape:
        raise CircuitError(
            f"{circuit.name!r} is a circuit of {circuit.model or 'another model'} and does not fit "
            f"{model.name}: {difference(circuit.shape, graph.shape)}. Load the model it was found in."
        )


def check_weights(circuit: Any, model: Any) -> None:
    """Warn if a circuit was found in other weights."""
    if circuit.weights_hash not in (None, model.weights_hash):
        warn(
            f"{circuit.name!r} was found in other weights ({circuit.model}, "
            f"{circuit.weights_hash[:12]}…) than these ({model.name}, {model.weights_hash[:12]}…): "
            "the numbers say how it does here, not how it did there."
        )
