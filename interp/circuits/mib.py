"""Circuit files of EAP-IG and of the MIB benchmark, both ways.

EAP-IG (Hanna et al. 2024, arXiv:2403.17806) and MIB's circuit track (Mueller et al. 2025,
arXiv:2504.13151) keep a circuit as JSON that lists *every* edge of the graph::

    {"cfg":   {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": false, "d_model": 768},
     "nodes": {"input": {"in_graph": true}, "a0.h0": {"in_graph": false}, ..., "logits": ...},
     "edges": {"input->a0.h0<q>": {"score": 0.1, "in_graph": true}, ...}}

Older files have ``"nodes": {"input": true}``. An edge counts if it and the nodes at its ends are in
the graph.

- **Embeddings.** Their ``input`` is the token embedding alone, and position embeddings are never
  ablated. Here they are two nodes. Reading maps ``input`` to ``embed`` and keeps the edges by which
  ``pos_embed`` reaches the circuit: into the logits, and into every input of each node whose output
  the circuit keeps. (Other nodes' outputs are ablated everywhere, so what they read is of no account.)
  Writing leaves ``pos_embed`` out, and warns where that makes the circuit larger.
- **Scores** are taken as they are. Here a score is metric(ablated) - metric(nothing ablated), so that
  with a metric that should be high, negative is an edge that helps. EAP-IG scores losses, so there
  positive helps: ``negate`` turns one into the other.
- A ``.pt`` file is a pickle, which runs what is in it: it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.fields import check_scores
from interp.circuits.files import read_json
from interp.errors import CircuitError, GraphError, warn
from interp.graph import Graph, node_of, split_edge
from interp.results import write_atomically

__all__ = ["mib_scores", "read_mib", "write_mib"]

_CFG = ("n_layers", "n_heads", "parallel_attn_mlp")


def read_mib(
    path: str | Path, *, pos_embed: bool, name: str | None = None, **others: Any
) -> Circuit:
    """The circuit in a JSON file of EAP-IG or MIB.

    Args:
        pos_embed: whether the model adds position embeddings to its stream (GPT-2 does, models with
            rotary positions do not); the file does not say.
        name: of the circuit; None: of the file.
        others: the circuit's other attributes, such as ``model`` and ``metric``.

    Raises:
        CircuitError: a pickle, a file that is not of this format, or one of parts of nodes.
    """
    place, graph, content = _opened(path, pos_embed=pos_embed)
    out = {node for node, told in content["nodes"].items() if not _is_in(place, node, told)}
    kept = set()
    for edge, told in content["edges"].items():
        own = _own(place, graph, edge)
        if _is_in(place, edge, told) and not out & _ends(edge):
            kept.add(own)
    edges = kept | set(_positional(graph, kept))
    others.setdefault("source", f"read from {place.name}, a file of EAP-IG or MIB")
    return Circuit(name or place.stem, frozenset(edges), graph.shape, **others)


def mib_scores(
    path: str | Path, *, pos_embed: bool, negate: bool = False
) -> Float[Tensor, "source dest"]:
    """The scores in a JSON file of EAP-IG or MIB, as they are or negated.

    NaN where there is no edge or no score: the position embeddings have none.

    Raises:
        CircuitError: as :func:`read_mib`.
    """
    place, graph, content = _opened(path, pos_embed=pos_embed)
    values = torch.full(graph.real.shape, torch.nan)
    for edge, told in content["edges"].items():
        score = told.get("score") if isinstance(told, Mapping) else None
        source, dest, _ = split_edge(_own(place, graph, edge))
        if isinstance(score, int | float):
            at = graph.sources.index(source), graph.dests.index(dest)
            values[at] = -score if negate else score
    return values


def write_mib(
    circuit: Circuit, path: str | Path, *, d_model: int, scores: Any = None, negate: bool = False
) -> Path:
    """Write a circuit as a JSON file that EAP-IG and MIB read.

    Args:
        d_model: width of the model's stream, which their files hold.
        scores: ``EdgeScores`` of the graph, or their values [source, dest]; None: the circuit's own,
            and where there are none either, 1 for its edges and 0 for the others, so that a
            threshold gives the circuit back.
        negate: write the scores with the other sign, for tools that expect positive to help.

    Raises:
        CircuitError: a circuit that their graphs cannot hold (positions, neurons, no MLPs), or
            scores of another graph.
    """
    graph = circuit.graph
    for kind, there in (("groups of positions", graph.positions), ("neurons or features", graph.units),
                        ("no MLPs", not graph.mlps)):  # fmt: skip
        if there:
            raise CircuitError(
                f"circuit {circuit.name!r} has {kind}, which a file of EAP-IG cannot say."
            )
    _warn_of_positions(circuit)
    values = _values(circuit, scores)
    values = -values if negate else values
    pairs = {f"{s}->{d}": values[i, j] for i, s in enumerate(graph.sources)
             for j, d in enumerate(graph.dests)}  # fmt: skip
    edges = {
        edge.replace("embed->", "input->", 1): {
            "score": float(pairs[edge].nan_to_num(0.0)), "in_graph": edge in circuit.edges}
        for edge in graph.edges if not edge.startswith("pos_embed->")
    }  # fmt: skip
    nodes = {"input" if node == "embed" else node: {"in_graph": node in circuit or node == "logits"}
             for node in graph.nodes if node != "pos_embed"}  # fmt: skip
    cfg = {"n_layers": graph.n_layers, "n_heads": graph.n_heads,
           "parallel_attn_mlp": graph.parallel, "d_model": d_model}  # fmt: skip
    return write_atomically(path, json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}).encode())


# -- reading ---------------------------------------------------------------------------------


def _opened(path: str | Path, *, pos_embed: bool) -> tuple[Path, Graph, dict[str, Any]]:
    """The file, its graph, and its content."""
    place = Path(path)
    if place.suffix in (".pt", ".pth", ".pkl"):
        raise CircuitError(
            f"{place} is a pickle, which can run any code when it is read. Save the circuit as JSON "
            "where it was made: graph.to_json('circuit.json')."
        )
    content = read_json(place)
    for key in ("cfg", "nodes", "edges"):
        if not isinstance(content.get(key), dict):
            raise CircuitError(
                f"{place}: {key!r} is missing or no object; expected 'cfg', 'nodes' and 'edges', as "
                "EAP-IG's graph.to_json writes them."
            )
    cfg = content["cfg"]
    if missing := [key for key in _CFG if not isinstance(cfg.get(key), int)]:
        raise CircuitError(f"{place}: 'cfg' has no number {missing[0]!r}; it has {sorted(cfg)}.")
    if any(isinstance(told, Mapping) and "neurons" in told for told in content["nodes"].values()):
        raise CircuitError(
            f"{place} holds parts of nodes ('neurons': dimensions of what they write), which are not "
            "edges; expected a circuit of edges or of nodes."
        )
    return place, Graph.shaped(
        n_layers=cfg["n_layers"], n_heads=cfg["n_heads"], parallel=bool(cfg["parallel_attn_mlp"]),
        pos_embed=pos_embed,
    ), content  # fmt: skip


def _own(place: Path, graph: Graph, edge: str) -> str:
    """An edge of theirs as one of ours."""
    name = f"embed->{edge.removeprefix('input->')}" if edge.startswith("input->") else edge
    try:
        if name.startswith("pos_embed"):
            raise GraphError(f"{edge!r} is not an edge of their graphs, where 'input' is one node.")
        return graph.edges[graph.number(name)]
    except GraphError as error:
        raise CircuitError(f"{place}: 'edges' does not fit its 'cfg': {error}") from None


def _ends(edge: str) -> set[str]:
    source, dest, _ = split_edge(edge)
    return {source, node_of(dest)}


def _is_in(place: Path, name: str, told: Any) -> bool:
    """Whether a node or edge is in the graph, in new files and in old."""
    flag = told.get("in_graph") if isinstance(told, Mapping) else told
    if not isinstance(flag, bool):
        raise CircuitError(
            f"{place}: {name!r} has {told!r}, expected {{'in_graph': true or false}}."
        )
    return flag


def _positional(graph: Graph, kept: set[str]) -> tuple[str, ...]:
    """The edges by which position embeddings reach a circuit; none where a model has none."""
    if not graph.pos_embed or not kept:
        return ()
    writers = {split_edge(edge)[0] for edge in kept} | {"logits"}
    return tuple(f"pos_embed->{dest}" for dest in graph.dests if node_of(dest) in writers)


# -- writing ---------------------------------------------------------------------------------


def _warn_of_positions(circuit: Circuit) -> None:
    """Say so where leaving position embeddings out, which are never ablated there, adds edges."""
    kept = {edge for edge in circuit.edges if not edge.startswith("pos_embed->")}
    if more := set(_positional(circuit.graph, kept)) - circuit.edges:
        warn(
            f"circuit {circuit.name!r} ablates {len(more)} edges of 'pos_embed' (such as "
            f"{min(more)!r}); EAP-IG and MIB never ablate position embeddings, so that in the "
            "written file those edges are part of the circuit."
        )


def _values(circuit: Circuit, scores: Any) -> Float[Tensor, "source dest"]:
    """Scores of every edge as a matrix of the graph."""
    given = circuit.scores if scores is None else scores
    if given is None:
        return circuit.graph.mask(circuit.edges).float()
    if not isinstance(given, Tensor):
        check_scores(circuit.name, circuit.graph, given)
        given = given.values
    if given.shape != circuit.graph.real.shape:
        raise CircuitError(
            f"the scores for circuit {circuit.name!r} have shape {tuple(given.shape)}, expected "
            f"{tuple(circuit.graph.real.shape)}: a row for each source, a column for each destination."
        )
    return given.detach().cpu()
