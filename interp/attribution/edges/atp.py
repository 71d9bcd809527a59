"""``atp-qk`` and ``atp*`` for edges: queries and keys by the exact softmax, and GradDrop.

1. *QK fix.* An edge into a head's queries or keys changes its attention pattern, and a pattern near 0
   or 1 has almost no gradient. So what the queries (or keys) are with the edge ablated is computed
   by the model's own norm, projection and attention, the pattern with them (the other factor, and all
   else, is the run's own), and only what comes behind the pattern is linearised:
   score = Σ (pattern with the edge ablated - pattern) · ∂metric/∂pattern.
   Edges into values, MLPs and logits are first order, as ``eap``. This alone is ``atp-qk``.
2. *GradDrop.* A destination's direct and indirect effects may cancel. ``atp*`` makes the estimate once
   for each layer, with no gradient through what that layer's attention and MLP add to the stream,

       score(u → v) = 1/(L - 1) · Σ over layers ℓ of |estimate with layer ℓ dropped|,

   and L in the place of L - 1 for edges into the logits, which no dropped layer silences. An edge into
   a head or MLP is 0 while that layer is dropped. **Scores have no sign**: sizes, in the metric's unit;
   absolute values are taken for each prompt, then averaged over prompts.

GradDrop is for deep models. With L = 2 an edge into the first block keeps only what does not pass the
second, and one whose whole effect does gets 0: there ``atp-qk`` is the better estimate.

One forward pass, one backward pass (``atp*``: L), and for each source and each block behind it twice
the part of the block that makes attention scores.

Source: Kramár et al. 2024 (arXiv:2403.00745), sections 3.1.1 and 3.1.2, there for nodes. Departures: the
norm in front of queries and keys is recomputed too (a node is patched behind it); all positions of an
edge are ablated together, or those of each group.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.attribution.edges.eap import product
from interp.attribution.edges.softmax import Attention
from interp.attribution.edges.trace import trace
from interp.errors import RunError
from interp.graph import Graph, Setting
from interp.taps.hooks import Fn
from interp.taps.points import Key
from interp.token_batch import TokenBatch

__all__ = ["by_softmax"]


@torch.no_grad()
def by_softmax(
    setting: Setting,
    rows: slice,
    tokens: TokenBatch,
    advance: Callable[[int], None],
    *,
    drop: bool,
) -> tuple[Float[Tensor, "prompt source dest *position"], Float[Tensor, " prompt"]]:
    """Scores of some prompts' edges, and of the unedited run; ``advance`` once for each layer.

    Args:
        drop: ``atp*``; False: ``atp-qk``.

    Raises:
        RunError: one layer, which has nothing left when it is dropped.
    """
    graph = setting.graph
    n_layers = graph.n_layers
    if drop and n_layers < 2:
        raise RunError(
            "method='atp*' drops one layer's gradients at a time, and this model has one layer: "
            "use method='atp-qk'."
        )
    dropped: list[int | None] = []
    run = trace(setting, rows, tokens, edits=_gates(graph, dropped) if drop else {}, patterns=True)
    written = run.written()
    change = setting.ablated(rows).to(written) - written
    out = change.new_zeros(len(run.scores), *graph.full.shape)
    groups = None if setting.groups is None else setting.groups[rows]
    size: Callable[[Tensor], Tensor] = torch.abs if drop else torch.positive
    slopes: list[list[Tensor]] = []  # at patterns: for each dropped layer, by layer
    passes: list[int | None] = [*range(n_layers)] if drop else [None]
    for layer in passes:
        dropped[:] = [layer]
        found = run.gradients(keep=layer != passes[-1])
        slopes.append([found["pattern", one] for one in range(n_layers)])
        for reading in run.readings(found, channels="v"):
            before = slice(0, reading.sources)
            part = product(change[before], reading.gradient, groups, len(graph.positions))
            out[:, before, reading.dests] += size(part)
    attention, scores = Attention.of(setting, tokens, run), run.scores.detach()
    del run
    for layer in range(n_layers):
        own = torch.stack([each[layer] for each in slopes])
        for sources, dests, effect in attention.effects(layer, change, own, groups):
            out[:, sources, dests] = size(effect).sum(0).to(out.dtype)
        advance(1)
    if drop:
        out[:, :, :-1] /= n_layers - 1
        out[:, :, -1:] /= n_layers
    return out, scores


def _gates(graph: Graph, dropped: list[int | None]) -> dict[Key, Fn]:
    """Functions at what each layer adds, through which no gradient passes while it is dropped."""

    def gate(layer: int) -> Fn:
        def apply(x: Tensor) -> Tensor:
            x.register_hook(lambda g: torch.zeros_like(g) if dropped == [layer] else g)
            return x

        return apply

    branches = ("attn_out", "mlp_out") if graph.mlps else ("attn_out",)
    return {(one, layer): gate(layer) for layer in range(graph.n_layers) for one in branches}
