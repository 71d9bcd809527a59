"""A circuit as text, as a table and as a networkx graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from interp.graph import Node, node_of, split_edge

if TYPE_CHECKING:
    import networkx as nx
    from pandas import DataFrame

    from interp.circuits.circuit import Circuit

__all__ = ["by_role", "described", "frame", "headline", "network"]

NO_ROLE = "no role"
_MOST, _LARGEST = 8, 5  # entries that are told one by one; how many are told of more


def headline(circuit: Circuit) -> str:
    """One line: how large it is, and of what.

    Its density has two digits, so that few edges of many are not called none.
    """
    roles = {role for own in circuit.roles.values() for role in own}
    what = [
        circuit.model or "no model",
        circuit.metric,
        circuit.ablation and f"{circuit.ablation} ablation",
    ]
    told = f", {len(roles)} role{'s' * (len(roles) != 1)}" if roles else ""
    return (
        f"Circuit({circuit.name!r}: {circuit.size} of {len(circuit.graph.edges)} edges "
        f"({100 * circuit.density:.2g}%), {len(circuit.nodes)} nodes{told}; "
        f"{', '.join(one for one in what if one)})"
    )


def by_role(circuit: Circuit) -> dict[str, str]:
    """The nodes of each role, as text; a node of several roles stands under each."""
    found: dict[str, list[str]] = {}
    for node, own in circuit.roles.items():
        for role in own:
            found.setdefault(role, []).append(node)
    if rest := [node for node in circuit.nodes if node not in circuit.roles]:
        found[NO_ROLE] = rest
    return {role: ", ".join(nodes) for role, nodes in found.items()}


def described(circuit: Circuit) -> str:
    """Several lines: what it is, found how, with which roles, and what was measured."""
    roles = by_role(circuit)
    wide = max(map(len, roles), default=0)
    lines = [headline(circuit)]
    lines += [f"source: {circuit.source}"] if circuit.source else []
    lines += [f"weights: {circuit.weights_hash or 'not at hand when it was written'}"]
    for key in ("prompts", "method", "measured"):
        lines += _told(key, value) if (value := getattr(circuit, key)) else []
    lines += ["roles:", *(f"  {role:<{wide}}  {nodes}" for role, nodes in roles.items())]
    return "\n".join(lines)


def _told(name: str, value: Any, indent: int = 0) -> list[str]:
    """A field as lines: what it holds below it, numbers with four digits, of many the largest."""
    begin = f"{'  ' * indent}{name}:"
    if not isinstance(value, dict):
        many = isinstance(value, list) and len(value) > _MOST
        return [f"{begin} {len(value)} of them" if many else f"{begin} {_short(value)}"]
    if len(value) > _MOST and all(isinstance(one, int | float) for one in value.values()):
        largest = sorted(value, key=lambda key: -abs(value[key]))[:_LARGEST]
        told = ", ".join(f"{key} {_short(value[key])}" for key in largest)
        return [f"{begin} {len(value)} numbers, largest {told}"]
    return [begin, *(line for key, one in value.items() for line in _told(key, one, indent + 1))]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parts(edge: str) -> dict[str, Any]:
    source, dest, position = split_edge(edge)
    node = node_of(dest)
    channel = dest.removeprefix(node).strip("<>") or None
    return {"source": source, "dest": node, "channel": channel, "position": position}


def frame(circuit: Circuit) -> DataFrame:
    """One row for each edge."""
    import pandas as pd

    rows = []
    for edge in circuit.ordered:
        row = {"edge": edge, **_parts(edge)}
        row["channel"] = row["channel"] or ""
        row |= {
            f"{end}_roles": ", ".join(circuit.roles.get(row[end], ())) for end in ("source", "dest")
        }
        rows.append(row if circuit.positions else {k: v for k, v in row.items() if k != "position"})
    table = pd.DataFrame(
        rows, columns=list(rows[0]) if rows else ["edge", "source", "dest", "channel"]
    )
    if circuit.scores is not None:
        table["score"] = [circuit.scores.of(edge) for edge in circuit.ordered]
    return table


def network(circuit: Circuit) -> nx.MultiDiGraph:
    """Nodes with kind, layer and roles; edges keyed by their names."""
    import networkx as nx

    made = nx.MultiDiGraph(name=circuit.name)
    for name in circuit.nodes:
        node = Node.parse(name)
        made.add_node(name, kind=node.kind, layer=node.layer, roles=circuit.roles.get(name, ()))
    for edge in circuit.ordered:
        own = _parts(edge)
        source, dest = own.pop("source"), own.pop("dest")
        score = {} if circuit.scores is None else {"score": circuit.scores.of(edge)}
        made.add_edge(source, dest, key=edge, **own, **score)
    return made
