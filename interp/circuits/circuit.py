"""A circuit: a set of edges of a model's graph, with what it was found on and what was measured.

A circuit is data. It names edges (``"a9.h9->logits"``); its nodes are the ends of those edges. It
holds no tensor and no model, so it can be written, compared and combined on any machine:

>>> shape = {"n_layers": 2, "n_heads": 2, "pos_embed": False}
>>> a = Circuit("a", {"embed->a0.h0<v>", "a0.h0->logits"}, shape)
>>> b = Circuit("b", {"embed->a0.h0<v>", "embed->logits"}, shape)
>>> (a & b).edges, a.jaccard(b)
(frozenset({'embed->a0.h0<v>'}), 0.3333333333333333)

Two circuits are equal when their edges and their graphs are: names, roles and measurements do not
count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.attribution.edges import EdgeScores
from interp.circuits import fields, pruning, tables
from interp.circuits.edge_set import EdgeSet
from interp.errors import CircuitError, nearest
from interp.results import Provenance

if TYPE_CHECKING:
    import networkx as nx
    from pandas import DataFrame

    from interp.circuits.drawing import CircuitPage, Drawing
    from interp.circuits.evaluation_result import CircuitEvaluation


__all__ = ["Circuit"]

# What is given may be looser than what is kept: any collection of edges, roles as text or as lists.
if TYPE_CHECKING:
    Edges = frozenset[str]
    Roles = Mapping[str, tuple[str, ...]]
else:
    Edges, Roles = Collection[str], Mapping[str, str | Collection[str]]


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(EdgeSet):
    """A set of edges of one model's graph, checked when it is made.

    Attributes:
        name: what it is called; the name of its file.
        edges: its edges, ``"m0->a1.h3<q>"``; any iterable of them is taken. May be empty.
        shape: what makes the model's graph (:attr:`Graph.shape`).
        model: the name that the model is loaded by.
        weights_hash: sha256 of its weights; None where they were not at hand.
        metric: the metric it was found with.
        ablation: what edges outside it carry: ``"resample"``, ``"mean"`` or ``"zero"``.
        positions: groups of positions that edges are counted at, as in ``shape``.
        prompts: what it was found on: task, n, seed, and the prompts' hash under ``"hash"``.
        method: the verb that found it and its arguments.
        roles: the roles of nodes, ``{"a9.h9": ("name mover",)}``.
        source: the paper, or the command that finds it again.
        measured: what was measured of it, and by which command.
        provenance: model, prompts, seed, versions and the call; None for published circuits.
        scores: a score for every edge of the graph; a file of its own beside the circuit's.

    Raises:
        CircuitError: an edge or node that the graph has not, with the nearest; values that JSON
            cannot hold; scores of another graph.
    """

    name: str
    edges: Edges
    shape: Mapping[str, Any]
    model: str = ""
    weights_hash: str | None = None
    metric: str = ""
    ablation: str = ""
    positions: tuple[str, ...] = ()
    prompts: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    roles: Roles = field(default_factory=dict)
    source: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None
    scores: EdgeScores | None = None

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not name.strip():
            raise CircuitError(f"a circuit needs a name, such as 'ioi-gpt2'; got {name!r}.")
        self._put("shape", fields.shape_of(name, self.shape, self.positions))
        self._put("positions", self.graph.positions)
        self._put("edges", fields.edges_of(name, self.graph, self.edges))
        self._put("roles", fields.roles_of(name, self.graph, self.roles))
        for key in ("prompts", "method", "measured"):
            self._put(key, fields.plain(name, key, getattr(self, key)))
        fields.check_scores(name, self.graph, self.scores)

    def _put(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    # -- what it is ----------------------------------------------------------------------

    def with_role(self, role: str) -> tuple[str, ...]:
        """The nodes that have a role, in the order of the graph.

        Raises:
            CircuitError: no node has it; the nearest are named.
        """
        found = tuple(node for node, own in self.roles.items() if role in own)
        if not found:
            known = sorted({one for own in self.roles.values() for one in own})
            have = f"nearest: {nearest(role, known)}" if known else "it has no roles"
            raise CircuitError(f"no node of circuit {self.name!r} has the role {role!r}; {have}.")
        return found

    def __repr__(self) -> str:
        return tables.headline(self)

    def summary(self) -> dict[str, str]:
        """The nodes of each role as text, and those without one under ``"no role"``."""
        return tables.by_role(self)

    def show(self) -> str:
        """What it is, its source, its roles and what was measured, as text."""
        return tables.described(self)

    # -- new circuits from it ------------------------------------------------------------

    @classmethod
    def of_nodes(
        cls, name: str, nodes: Iterable[str], shape: Mapping[str, Any], **others: Any
    ) -> Circuit:
        """Every edge among some nodes: what a circuit of nodes is as a circuit of edges.

        Args:
            nodes: ``"a9.h9"``, ``"m0"``; the embeddings and ``"logits"`` only where they are named.
            shape: of the graph; positions and all.
            others: the circuit's other attributes.

        Raises:
            CircuitError: a node that the graph has not.
        """
        graph = fields.graph_of(fields.shape_of(name, shape))
        chosen = {fields.node_in(name, graph, node) for node in nodes}
        edges = [edge for edge in graph.edges if pruning.ends([edge]) <= chosen]
        return cls(name, frozenset(edges), shape, **others)

    def sub(self, *, roles: str | Iterable[str] = (), nodes: Iterable[str] = ()) -> Circuit:
        """Its edges among the nodes of some roles, and others by name.

        The embeddings and ``"logits"`` count only where they are named:
        ``circuit.sub(roles="name mover", nodes=["logits"])``.

        Raises:
            CircuitError: a role or node that there is not.
        """
        wanted = (roles,) if isinstance(roles, str) else tuple(roles)
        chosen = {fields.node_in(self.name, self.graph, node) for node in nodes}
        chosen |= {node for role in wanted for node in self.with_role(role)}
        return self._part("part", (edge for edge in self.edges if pruning.ends([edge]) <= chosen))

    @property
    def dangling(self) -> tuple[str, ...]:
        """Its edges on no path from an embedding to the logits: what :meth:`pruned` leaves out."""
        kept = pruning.connected(self.edges)
        return tuple(edge for edge in self.ordered if edge not in kept)

    def pruned(self) -> Circuit:
        """The edges on a path from an embedding to the logits, as a new circuit; this one stays.

        Not neutral under zero or mean ablation: a node of the circuit that nothing in it reaches
        still computes something from ablated inputs (its biases, say), and its edges carry that.
        Under resample ablation it computes what the ablated edges carry anyway, so there pruning
        changes nothing. See :mod:`interp.circuits.pruning`.
        """
        return self._part("pruned", pruning.connected(self.edges))

    def with_roles(self, roles: Mapping[str, str | Iterable[str]]) -> Circuit:
        """The same circuit with these roles, instead of those it had."""
        return replace(self, roles=fields.roles_of(self.name, self.graph, roles))

    def _part(self, what: str, edges: Iterable[str]) -> Circuit:
        """Some of its edges, by a name that says so, with their nodes' roles and no measurements."""
        kept = frozenset(edges)
        if kept == self.edges:
            return self
        ends = pruning.ends(kept)
        own = {node: roles for node, roles in self.roles.items() if node in ends}
        return replace(self, name=f"{self.name} ({what})", edges=kept, roles=own, measured={})

    # -- measured and drawn --------------------------------------------------------------

    def evaluate(self, model: Any, prompts: Any = None, **options: Any) -> CircuitEvaluation:
        """Measure how faithful, complete and minimal it is, beside random circuits of its size.

        The circuit is run as it is: nothing is pruned. Its own metric and ablation are used where
        no other is given.

        Args:
            model: a model, or a :class:`interp.graph.Setting`, which has prompts of its own.
            prompts: prompts that the circuit was *not* found on; it warns of others.
            options: ``metric``, ``ablation``, ``reference`` (other prompts, for means), ``seed`` and
                the numbers of random sets: see :func:`interp.circuits.evaluation.evaluate`.

        Raises:
            CircuitError: the model's graph is another one, or there are no prompts.
            GapError: the metric hardly differs between the model and the empty circuit.
        """
        from interp.circuits.evaluation import evaluate

        return evaluate(self, model, prompts, **options)

    def draw(
        self,
        *,
        scores: Any = None,
        title: str | None = None,
        width: float | None = None,
        top: int | None = None,
    ) -> Drawing:
        """Draw it in layers, embeddings at the bottom: ``circuit.draw().save("circuit.svg")``.

        Args:
            scores: of edges, which give widths and colours; None: its own, if it has any.
            title: None: its name and model.
            width: in inches; None: the natural one.
            top: draw only the edges of the largest \\|score\\|.

        Raises:
            CircuitError: nothing to draw or too much to see, ``top`` without scores, or scores of
                other edges.
        """
        from interp.circuits.drawing import draw

        return draw(self, scores=scores, title=title, width=width, top=top)

    def view(self, *, model: Any = None, prompts: Any = None, **options: Any) -> CircuitPage:
        """An HTML page to look into it, in one file: ``circuit.view().save("circuit.html")``.

        Args:
            model, prompts: what a clicked head's attention is measured on.
            options: ``scores``, ``curve`` (faithfulness of the first n edges), ``attention``, ``title``:
                see :func:`interp.circuits.drawing.page`.

        Raises:
            CircuitError: nothing to draw, scores or a curve of another graph, a model without prompts.
        """
        from interp.circuits.drawing import page

        return page(self, model=model, prompts=prompts, **options)

    # -- tables and files ----------------------------------------------------------------

    def to_frame(self) -> DataFrame:
        """One row for each edge, in the graph's order.

        ``edge``, ``source``, ``dest`` (nodes), ``channel`` (q, k, v or ""), ``position`` where
        edges have one, ``source_roles``, ``dest_roles``, and ``score`` where there are scores.
        """
        return tables.frame(self)

    def to_networkx(self) -> nx.MultiDiGraph:
        """A networkx graph of its nodes; an edge for each channel and position.

        Nodes carry ``kind``, ``layer`` and ``roles``; edges have their own name as key and carry
        ``channel``, ``position`` and, where there are scores, ``score``.
        """
        return tables.network(self)

    def save(self, path: str | Path) -> Path:
        """Write it to a JSON file, whole or not at all; scores into a safetensors file beside it.

        Raises:
            CircuitError: the name of the file does not end in ``.json``.
            ResultError: the place cannot be written.
        """
        from interp.circuits.files import save

        return save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read a circuit from a file, or a shipped one by its name: ``Circuit.load("ioi-gpt2")``.

        Raises:
            CircuitError: no such file or circuit, or a damaged one: which field, and what was
                expected.
        """
        from interp.circuits.files import load

        return load(path)

    @classmethod
    def from_mib(cls, path: str | Path, *, pos_embed: bool, **others: Any) -> Circuit:
        """Read a JSON file of EAP-IG or MIB; see :func:`interp.circuits.mib.read_mib`."""
        from interp.circuits.mib import read_mib

        return read_mib(path, pos_embed=pos_embed, **others)

    def to_mib(
        self, path: str | Path, *, d_model: int, scores: Any = None, negate: bool = False
    ) -> Path:
        """Write a JSON file for EAP-IG or MIB; see :func:`interp.circuits.mib.write_mib`."""
        from interp.circuits.mib import write_mib

        return write_mib(self, path, d_model=d_model, scores=scores, negate=negate)
