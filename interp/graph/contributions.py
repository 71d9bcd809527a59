"""What every node of a graph wrote in one run: the terms of the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.graph.graph import Graph
from interp.graph.parts import Parts
from interp.graph.units import units_at
from interp.runs.execute import Run, execute
from interp.token_batch import TokenBatch

__all__ = ["Read", "contributions", "reading", "run_and_read", "sites_read"]

#: A whole tensor of a run, by point and layer.
Read = Callable[[str, int | None], Tensor]


def contributions(
    graph: Graph, parts: Parts, read: Read
) -> Float[Tensor, "source row pos d_model"]:
    """What each source writes, in the order of ``graph.sources``, in float32 or better."""
    found = [_wide(read("embed", None))[None]]
    if graph.pos_embed:
        found.append(_wide(read("pos_embed", None)).expand_as(found[0][0])[None])
    for layer in range(graph.n_layers):
        found.append(parts.heads(layer, read("z", layer)))
        if graph.mlps:
            found.append(mlp_and_units(graph, parts, layer, read))
    return torch.cat(found)


def mlp_and_units(
    graph: Graph, parts: Parts, layer: int, read: Read
) -> Float[Tensor, "source row pos d_model"]:
    """What an MLP writes; where some of its units are nodes, the rest of it first, then they."""
    whole = _wide(read("mlp_out", layer))[None]
    point, units = units_at(graph, layer)
    if not units:
        return whole
    write = parts.neurons if point == "mlp_post" else parts.features
    own = write(layer, read(point, layer), units)
    return torch.cat([whole - own.sum(0, keepdim=True), own])


def sites_read(graph: Graph) -> tuple[str, ...]:
    """What a run must save for its :func:`contributions`."""
    names = ["embed"] + ["pos_embed"] * graph.pos_embed + ["L*.z"] + ["L*.mlp_out"] * graph.mlps
    points = [(layer, units_at(graph, layer)[0]) for layer in range(graph.n_layers)]
    return (*names, *(f"L{layer}.{point}" for layer, point in points if point))


def reading(run: Run) -> Read:
    """The tensors of a run's cache."""
    return lambda point, layer: run.cache[point if layer is None else f"L{layer}.{point}"]


def run_and_read(
    parts: Parts, graph: Graph, tokens: TokenBatch, logits: Literal["none", "last", "all"] = "none"
) -> tuple[Run, Float[Tensor, "source row pos d_model"]]:
    """One ordinary run of some prompts, and what its nodes wrote."""
    run = execute(
        parts.anatomy, tokens, save=sites_read(graph), logits=logits, rows_at_once=len(tokens)
    )
    return run, contributions(graph, parts, reading(run))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
