"""Does a circuit meet what it was made for: prompts it has not seen, and the model it came from?"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from interp.circuits.fields import difference
from interp.errors import CircuitError, warn
from interp.graph import Graph

__all__ = ["check_fits", "check_graph", "check_prompts", "described", "known", "row_hashes",
           "unseen"]  # fmt: skip

_DIGITS = 12


def described(prompts: Any) -> dict[str, Any]:
    """What a circuit keeps of the prompts it was found on: task, n, seed, hash, and each row's."""
    return {
        "task": prompts.name, "n": len(prompts), "seed": prompts.seed, "hash": prompts.hash,
        "rows": list(row_hashes(prompts)),
    }  # fmt: skip


def row_hashes(prompts: Any) -> tuple[str, ...]:
    """A short digest of each clean prompt's real tokens, wherever its padding stands.

    Kept as ``rows`` among a circuit's ``prompts``, they tell whether other prompts overlap.
    """
    batch = prompts.clean
    rows = (ids[mask].tolist() for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True))
    return tuple(hashlib.sha256(str(row).encode()).hexdigest()[:_DIGITS] for row in rows)


def known(circuit: Any, prompts: Any) -> tuple[bool, ...]:
    """Which of these prompts a circuit was found on.

    Compares the hash of the whole and, where the circuit keeps them, of each row.
    """
    kept = dict(circuit.prompts or {})
    provenance = getattr(circuit, "provenance", None)
    wholes = {kept.get("hash"), getattr(provenance, "prompts_hash", None)} - {None}
    if prompts.hash in wholes:
        return (True,) * len(prompts)
    seen = set(kept.get("rows") or ())
    return tuple(row in seen for row in row_hashes(prompts)) if seen else (False,) * len(prompts)


def unseen(circuit: Any, prompts: Any) -> Any:
    """The prompts that a circuit was not found on, or all where it was found on all."""
    new = [row for row, seen in enumerate(known(circuit, prompts)) if not seen]
    return prompts.subset(new) if 0 < len(new) < len(prompts) else prompts


def check_prompts(circuit: Any, prompts: Any) -> int:
    """Warn if a circuit is asked about prompts that it was found on; how many of them."""
    n = sum(known(circuit, prompts))
    if n:
        warn(
            f"{n} of these {len(prompts)} prompts are among those that {circuit.name!r} was found "
            "on: what is measured on them flatters it. Split first, with prompts.split(0.5), or draw "
            "others with another seed."
        )
    return n


def check_graph(circuit: Any, model: Any, graph: Graph | None = None) -> None:
    """See that a model's graph is the circuit's.

    Args:
        graph: the model's, where it is at hand.

    Raises:
        CircuitError: it is another one, and where they differ.
    """
    own = graph or Graph.of(model, units=circuit.graph.units, positions=circuit.positions)
    if circuit.shape != own.shape:
        raise CircuitError(
            f"{circuit.name!r} is a circuit of {circuit.model or 'another model'} and does not fit "
            f"{model.name}: {difference(circuit.shape, own.shape)}. Load the model it was found in."
        )


def check_fits(
    circuit: Any, model: Any, graph: Graph | None = None
) -> Literal["same", "other", "unknown"]:
    """Check that a model's graph is the circuit's, and compare the weights.

    Args:
        model: a :class:`interp.Model`.
        graph: the model's, where it is at hand.

    Returns:
        ``"same"`` weights as the circuit's; ``"other"`` weights, of which it warns; ``"unknown"``
        where the circuit does not say (published circuits).

    Raises:
        CircuitError: the model's graph is another one, and where they differ.
    """
    check_graph(circuit, model, graph)
    if circuit.weights_hash is None:
        return "unknown"
    if circuit.weights_hash == model.weights_hash:
        return "same"
    warn(
        f"{circuit.name!r} was found in other weights ({circuit.model}, "
        f"{circuit.weights_hash[:12]}…) than these ({model.name}, {model.weights_hash[:12]}…): "
        "the numbers say how it does here, not how it did there."
    )
    return "other"
