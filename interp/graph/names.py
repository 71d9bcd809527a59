"""Names of nodes and edges: the words of EAP-IG and MIB, with the two embeddings apart.

===================  ===================================================================
``embed``            the token embeddings
``pos_embed``        the position embeddings, where the model adds them to the stream
``a1.h3``            head 3 of block 1
``m2``               the MLP of block 2
``m2.n77``           its neuron 77 (``m2`` is then the rest of it)
``m2.f1204``         feature 1204 of the dictionary that stands for it
``logits``           what the unembedding reads
``a1.h3<q>``         what the head's queries read; ``<k>``, ``<v>``
``m0->a1.h3<q>``     an edge: what ``m0`` writes, as the queries of ``a1.h3`` read it
``m0->logits@END``   the same, where the destination reads at one position
===================  ===================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from interp.errors import GraphError

__all__ = ["CHANNELS", "Node", "node_of", "split_edge"]

Channel = Literal["q", "k", "v"]
CHANNELS: Final[tuple[Channel, ...]] = ("q", "k", "v")
_NODE = re.compile(
    r"a(?P<attn>\d+)\.h(?P<head>\d+)|m(?P<mlp>\d+)(?:\.(?P<kind>[nf])(?P<unit>\d+))?"
)
_OUTER: Final = ("embed", "pos_embed", "logits")


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph.

    Attributes:
        kind: ``embed``, ``pos_embed``, ``head``, ``mlp``, ``neuron``, ``feature`` or ``logits``.
        layer: its block; None outside the blocks.
        index: which head, neuron or feature.
    """

    kind: Literal["embed", "pos_embed", "head", "mlp", "neuron", "feature", "logits"]
    layer: int | None = None
    index: int | None = None

    @classmethod
    def parse(cls, name: str) -> Node:
        """Read a node's name.

        >>> Node.parse("a1.h3")
        Node(kind='head', layer=1, index=3)

        Raises:
            GraphError: it is not the name of a node.
        """
        if name in _OUTER:
            return cls(name)  # type: ignore[arg-type]
        match = _NODE.fullmatch(name)
        if match is None:
            raise GraphError(
                f"{name!r} is not a node: expected 'embed', 'pos_embed', 'a1.h3' (head 3 of block "
                "1), 'm2' (an MLP), 'm2.n77' (a neuron), 'm2.f12' (a feature) or 'logits'."
            )
        if match["attn"] is not None:
            return cls("head", int(match["attn"]), int(match["head"]))
        if match["kind"] is None:
            return cls("mlp", int(match["mlp"]))
        return cls("neuron" if match["kind"] == "n" else "feature", int(match["mlp"]),
                   int(match["unit"]))  # fmt: skip

    def __str__(self) -> str:
        if self.layer is None:
            return self.kind
        if self.kind == "head":
            return f"a{self.layer}.h{self.index}"
        return f"m{self.layer}" + ("" if self.kind == "mlp" else f".{self.kind[0]}{self.index}")


def split_edge(edge: str) -> tuple[str, str, str | None]:
    """Source, destination and position of an edge.

    >>> split_edge("m0->a1.h3<q>@S2")
    ('m0', 'a1.h3<q>', 'S2')

    Raises:
        GraphError: there is not exactly one arrow.
    """
    ends = edge.split("->")
    if len(ends) != 2:
        raise GraphError(f"{edge!r} is not an edge: expected 'm0->a1.h3<q>' or 'm0->logits@END'.")
    dest, _, position = ends[1].partition("@")
    return ends[0].strip(), dest.strip(), position.strip() or None


def node_of(dest: str) -> str:
    """The node that a destination belongs to: ``"a0.h0<q>"`` is read by ``"a0.h0"``."""
    return dest.split("<")[0]
