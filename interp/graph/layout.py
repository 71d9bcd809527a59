"""How a setting lays its prompts out: which run together, and which columns share edges."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.engine.work import tokens_that_fit
from interp.errors import GraphError
from interp.graph.graph import Graph
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.runs.memory import available
from interp.token_batch import TokenBatch

__all__ = ["position_groups", "prompts_together", "weights_now"]


def prompts_together(
    graph: Graph, model: Model, tokens: TokenBatch, batch: Any
) -> tuple[slice, ...]:
    """Prompts that run together.

    Raises:
        GraphError: ``batch`` is neither a number nor "auto".
    """
    n, width = len(tokens), tokens.ids.shape[1]
    if batch == "auto":
        per_row = 8 * len(graph.sources) * width * model.d_model
        step = min(
            max(1, tokens_that_fit(model.anatomy, width) // width),
            max(1, available(model.device) // (8 * per_row)),
        )
    else:
        step = batch
    if not isinstance(step, int) or step < 1:
        raise GraphError(f"batch={batch!r}: expected a number of prompts, or 'auto'.")
    return tuple(slice(low, min(low + step, n)) for low in range(0, n, step))


def position_groups(graph: Graph, prompts: Prompts) -> Int[Tensor, "prompt pos"] | None:
    """The group of positions of each column: that of the name which stands there, or "other".

    Raises:
        GraphError: two names stand at one column.
    """
    if not graph.positions:
        return None
    groups = torch.full_like(prompts.clean.ids, len(graph.positions) - 1)
    rows = torch.arange(len(prompts), device=groups.device)
    for number, name in enumerate(graph.positions[:-1]):
        given = name in prompts.positions or not name.lstrip("-").isdigit()
        columns = prompts.columns(name if given else int(name)).to(groups.device)
        taken = groups[rows, columns]
        if bool((taken < len(graph.positions) - 1).any()):
            row = int((taken < len(graph.positions) - 1).nonzero()[0])
            raise GraphError(
                f"positions {graph.positions[int(taken[row])]!r} and {name!r} are one column in prompt "
                f"{row}: an edge there would have two names. Leave one of them out, or the prompt."
            )
        groups[rows, columns] = number
    return groups


def weights_now(model: Model) -> tuple[tuple[int, int], ...]:
    """Which weights a model has: by place and number of writes."""
    return tuple((id(p), p._version) for p in model.hf.parameters())
