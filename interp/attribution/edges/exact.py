"""Every edge ablated alone, exactly: one variant of the run for each edge.

    score(u → v) = metric(run with u → v ablated) - metric(run)

with everything behind v recomputed. Variants restart at the block in which v reads, and many pass
the blocks together, so an edge costs a fraction of a run; one into the logits next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.graph import Setting

__all__ = ["by_ablation"]


def by_ablation(
    setting: Setting, advance: Callable[[int], None]
) -> Float[Tensor, "prompt source dest *position"]:
    """The exact effect of each edge on each prompt's score."""
    graph, full = setting.graph, setting.graph.full
    step, n = setting.variants_at_once, len(graph.edges)
    found: list[Tensor] = []
    for low in range(0, n, step):
        numbers = torch.arange(low, min(low + step, n))
        kept = full.expand(len(numbers), *full.shape).clone()
        at: tuple[Tensor, ...] = (torch.arange(len(numbers)), *(a[numbers] for a in graph.index))
        kept[at] = False
        found.append(setting.scores(kept))
        advance(len(numbers))
    effects = torch.cat(found) - setting.full  # [edge, prompt]
    out = effects.new_zeros(len(setting.full), *full.shape)
    out.movedim(0, -1)[graph.index] = effects
    return out
