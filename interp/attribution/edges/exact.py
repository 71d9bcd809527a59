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

from interp.errors import warn
from interp.graph import Setting

__all__ = ["by_ablation"]


def by_ablation(
    setting: Setting,
    advance: Callable[[int], None],
    known: Float[Tensor, "edge prompt"] | None = None,
) -> Float[Tensor, "prompt source dest *position"]:
    """The exact effect of each edge on each prompt's score.

    Args:
        known: effects that an interrupted run has found; NaN where it has not.

    Returns:
        The effects. Ctrl-C returns those that are finished, with NaN elsewhere.
    """
    graph, full = setting.graph, setting.graph.full
    effects = setting.full.new_full((len(graph.edges), len(setting.full)), torch.nan)
    effects = effects if known is None else known.to(effects).clone()
    todo = effects.isnan().any(1).nonzero().flatten()
    advance(len(effects) - len(todo))
    left = len(todo)
    try:
        for numbers in todo.split(setting.variants_at_once) if left else ():
            kept = full.expand(len(numbers), *full.shape).clone()
            at: tuple[Tensor, ...] = (
                torch.arange(len(numbers)),
                *(axis[numbers] for axis in graph.index),
            )
            kept[at] = False
            effects[numbers] = setting.scores(kept) - setting.full
            advance(len(numbers))
            left -= len(numbers)
    except KeyboardInterrupt:
        warn(
            f"interrupted: {len(effects) - left} of {len(effects)} edges are scored, the others are NaN. "
            "Pass resume= this result to go on."
        )
    out = effects.new_zeros(len(setting.full), *full.shape)
    out.movedim(0, -1)[graph.index] = effects
    return out
