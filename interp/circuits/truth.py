"""How well scores find a circuit that is known: the area under the ROC curve.

It is the chance that an edge of the true circuit has a larger score than another edge, ties counting
one half: 1 is a perfect ranking, 0.5 chance. Scores are compared by size, without their sign.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import CircuitError
from interp.geometry.correlation import ranks
from interp.graph import split_edge

if TYPE_CHECKING:
    from interp.attribution.edges.result import EdgeScores

__all__ = ["auroc", "mann_whitney"]


def auroc(
    scores: EdgeScores,
    truth: Iterable[str],
    *,
    level: Literal["edges", "nodes"] = "edges",
    zero: float = 1e-9,
) -> float:
    """How well |scores| tell the true circuit from the rest: 0 to 1, chance 0.5.

    Args:
        truth: the edges of the true circuit, or a Circuit.
        level: "nodes" compares the sums of each node's outgoing scores, in size; a node is true
            if a true edge begins at it.
        zero: scores smaller than this are equal to 0, so that rounding (a saturated softmax leaves
            gradients of 1e-14) breaks no tie. In the scores' unit.

    Returns:
        The Mann-Whitney statistic over the number of pairs: ties count one half, so the order in
        which equal scores are stored does not matter.

    Raises:
        GraphError: a true edge is not in the scores' graph.
        CircuitError: no edge is true, or all are; or scores are missing.
    """
    graph = scores.graph
    edges = tuple(getattr(truth, "edges", truth))
    if level == "nodes":
        values = scores.values.double().nan_to_num(0.0).flatten(1).sum(1)
        ends = {split_edge(edge)[0] for edge in graph.names(graph.mask(edges))}
        true = torch.tensor([source in ends for source in graph.sources])
    elif level == "edges":
        values = scores.values.double()[graph.index]
        true = graph.mask(edges)[graph.index]
    else:
        raise CircuitError(f"level={level!r}; expected 'edges' or 'nodes'.")
    if bool(values.isnan().any()):
        raise CircuitError(
            f"{int(values.isnan().sum())} of {len(values)} edges have no score; finish them first."
        )
    size = values.cpu().abs()
    return mann_whitney(size.masked_fill(size < zero, 0.0), true)


def mann_whitney(values: Float[Tensor, " item"], true: Bool[Tensor, " item"]) -> float:
    """The chance that a true item has a larger value than another one, ties counting one half.

    >>> mann_whitney(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([True, True, False]))
    0.75

    Raises:
        CircuitError: no item is true, or all are.
    """
    inside = int(true.sum())
    outside = len(true) - inside
    if not inside or not outside:
        raise CircuitError(
            f"{inside} of {len(true)} are in the true circuit: a ranking can be judged only where "
            "some are in it and some are not."
        )
    above = float(ranks(values)[true].sum()) - inside * (inside + 1) / 2
    return above / (inside * outside)
