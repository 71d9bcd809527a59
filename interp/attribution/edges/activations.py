"""``eap-ig-activations``: the gradient averaged while one group of nodes is on its way.

1. A group of nodes that write at one place (the token embeddings, the position embeddings, the heads of
   one block, one MLP) writes, in a run that is otherwise unedited, values on the line from the ablated
   ones (α = 0) to the run's own (α = 1). All positions and heads of the group move together.
2. In each of these runs the metric's gradient is taken at every destination behind the group.
3. score(u → v) = (ablated value of u - value of u) · mean over α of ∂metric/∂(what v reads), from the
   runs of u's own group.

So the scores of all edges out of a group sum to the exact effect of ablating its nodes together
(completeness), up to the error of the sum over α: one of order 1/steps for ``"left"`` and
``"right"``, 1/steps² for ``"midpoint"``. ``eap-ig`` has this for the token embeddings only. One forward
and one backward pass for each group and step.

α: ``"right"`` (1/m, 2/m, …, 1; what the published code does), ``"left"`` (0, …, (m-1)/m) or
``"midpoint"``.

Source: Hanna et al. 2024 (arXiv:2403.17806), and hannamw/EAP-IG's ``get_scores_ig_activations``,
after Marks et al. 2024 (arXiv:2403.19647). Departures: the published code adds up, for each edge,
the gradients of *all* groups' runs, also those in which its source does not move or in which its
destination lies before the group, and divides by their number; scores then sum to no effect. Under
mean ablation it goes to zero instead of to the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.attribution.edges.eap import OFFSETS, Alphas, product
from interp.attribution.edges.trace import trace
from interp.graph import Graph, Setting
from interp.taps.hooks import Fn
from interp.taps.points import Key
from interp.token_batch import TokenBatch

__all__ = ["Group", "by_activations", "groups_of"]


@dataclass(frozen=True)
class Group:
    """Nodes that write at one place.

    Attributes:
        sources: where they stand among the graph's.
        key: where what they write enters the residual stream.
        first: the first block that a gradient is needed of.
    """

    sources: slice
    key: Key
    first: int


def groups_of(graph: Graph) -> Iterator[Group]:
    """The groups in the order in which they write."""
    for place in range(1 + graph.pos_embed):
        yield Group(slice(place, place + 1), ("resid_pre", 0), 0)
    for layer in range(graph.n_layers):
        yield Group(graph.heads_at(layer), ("attn_out", layer), layer)
        if graph.mlps:
            yield Group(graph.mlps_at(layer), ("mlp_out", layer), layer + 1)


@torch.no_grad()
def by_activations(
    setting: Setting,
    rows: slice,
    tokens: TokenBatch,
    steps: int,
    alphas: Alphas,
    advance: Callable[[int], None],
) -> tuple[Float[Tensor, "prompt source dest *position"], Float[Tensor, " prompt"]]:
    """Scores of some prompts' edges, and of the unedited run; ``advance`` for each step of a group."""
    graph = setting.graph
    own = trace(setting, rows, tokens)
    written, scores, held = own.written(), own.scores.detach(), own.scales()
    del own
    change = setting.ablated(rows).to(written) - written
    out = change.new_zeros(len(scores), *graph.full.shape)
    positions = None if setting.groups is None else setting.groups[rows]
    for group in groups_of(graph):
        moved = change[group.sources]
        for step in range(steps):
            alpha = (step + OFFSETS[alphas]) / steps
            edits = _on_the_way(group, (1 - alpha) * moved.sum(0))
            run = trace(setting, rows, tokens, edits=edits, held=held)
            for reading in run.readings(first=group.first):
                if reading.sources < group.sources.stop:
                    continue  # it reads beside the group, not behind it
                part = product(moved, reading.gradient, positions, len(graph.positions))
                out[:, group.sources, reading.dests] += part / steps
            advance(1)
    return out, scores


def _on_the_way(group: Group, added: Float[Tensor, "prompt pos d_model"]) -> dict[Key, Fn]:
    """The edit of a run; nothing before the group's block has a gradient."""

    def move(x: Tensor) -> Tensor:
        return x + added.to(x.dtype)

    begin = ("resid_pre", group.key[1])
    edits: dict[Key, Fn] = {begin: lambda x: x.detach().requires_grad_()}
    edits[group.key] = move if group.key != begin else lambda x: move(x.detach()).requires_grad_()
    return edits
