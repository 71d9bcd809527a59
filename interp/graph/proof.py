"""Is the model the sum of its nodes, and do they read as the graph says?

Asked before every use; of a model whose blocks replay, once until a weight is written.

One prompt is run; the terms must sum to the stream in front of every block, and each head and MLP,
handed that stream, must read what the run read. A family whose blocks do anything else is refused
by name instead of being measured wrongly.
"""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.direct.proof import tolerance
from interp.engine.probe import why_not
from interp.errors import GraphError
from interp.graph.contributions import contributions, reading, sites_read
from interp.graph.graph import Graph
from interp.graph.parts import Parts
from interp.runs.execute import Run, execute
from interp.token_batch import TokenBatch

__all__ = ["prove"]


@torch.no_grad()
def prove(graph: Graph, parts: Parts, tokens: TokenBatch) -> None:
    """Compare the graph with one run of the first prompt, unless these weights have passed.

    Raises:
        GraphError: nodes do not sum to the stream, or read something else than the stream's norm.
    """
    anatomy = parts.anatomy
    weights = tuple((id(p), p._version) for p in anatomy.hf.parameters())
    same = (weights, graph.pos_embed, graph.units, parts.frozen)
    if why_not(anatomy) is not None:  # such as hooks or dictionaries, which come and go
        _compare(graph, parts, tokens)
    elif _passed.get(anatomy.hf) != same:
        _compare(graph, parts, tokens)
        _passed[anatomy.hf] = same


#: The weights, by place and number of writes, and the graph that was last compared with them.
_passed: Final[WeakKeyDictionary[nn.Module, tuple[Any, ...]]] = WeakKeyDictionary()


def _compare(graph: Graph, parts: Parts, tokens: TokenBatch) -> None:
    middle = [] if graph.parallel or not graph.mlps else ["L*.resid_mid"]
    reads = ["L*.q", "L*.k", "L*.v"] + ["L*.mlp.input"] * graph.mlps
    save = [*sites_read(graph), "L*.resid_pre", *middle, "L-1.resid_post", *reads]
    run = execute(parts.anatomy, tokens.rows(slice(0, 1)), save=save, logits="none")
    mask = tokens.mask[0].to(run.cache["embed"].device)
    _sums(graph, parts, run, mask)
    for layer in range(graph.n_layers):
        _reads(graph, parts, run, mask, layer)


def _sums(graph: Graph, parts: Parts, run: Run, mask: Tensor) -> None:
    """Between two blocks the stream changes by what the nodes write, and what belongs to none."""
    written = contributions(graph, parts, reading(run))
    before = graph.sources_before(0)
    _same(parts, written[:before].sum(0), run.cache["L0.resid_pre"], mask, "the embeddings")
    for layer in range(graph.n_layers):
        own = slice(graph.heads_at(layer).start, graph.mlps_at(layer).stop)
        last = layer + 1 == graph.n_layers
        behind = run.cache["L-1.resid_post" if last else f"L{layer + 1}.resid_pre"]
        rest = behind - run.cache[f"L{layer}.resid_pre"] - written[own].sum(0)
        rest = rest[0, mask]
        size = float(behind[0, mask].abs().max())
        if not parts.anatomy.blocks[layer].norm_after_attn:  # b_O: the same everywhere
            spread = float((rest - rest[:1]).abs().max())
            _check(parts, spread, size, f"what block {layer} adds")


def _reads(graph: Graph, parts: Parts, run: Run, mask: Tensor, layer: int) -> None:
    stream = run.cache[f"L{layer}.resid_pre"]
    inner = parts.normed(parts.before_attention(layer), stream)
    heads = torch.arange(graph.n_heads, device=stream.device)
    for channel, point in enumerate("qkv"):
        own = parts.project(layer, channel, heads, inner.expand(graph.n_heads, -1, -1, -1))
        there = run.cache[f"L{layer}.{point}"]
        there = there.repeat_interleave(graph.n_heads // there.shape[2], 2).permute(2, 0, 1, 3)
        _same(parts, own[:, 0], there[:, 0], mask, f"{point} of block {layer}")
    if graph.mlps:
        middle = stream if graph.parallel else run.cache[f"L{layer}.resid_mid"]
        own = parts.normed(parts.before_mlp(layer), middle)
        _same(parts, own, run.cache[f"L{layer}.mlp.input"], mask, f"the MLP of block {layer}")


def _same(
    parts: Parts,
    own: Float[Tensor, "any pos d"],
    there: Float[Tensor, "any pos d"],
    mask: Tensor,
    what: str,
) -> None:
    difference = float((own - there)[:, mask].abs().max())
    _check(parts, difference, float(there[:, mask].abs().max()), what)


def _check(parts: Parts, difference: float, size: float, what: str) -> None:
    allowed = tolerance(next(parts.anatomy.hf.parameters()).dtype) * max(1.0, size)
    if not difference <= allowed:  # NaN is no proof
        raise GraphError(
            f"this model is not the graph of its heads and MLPs: {what} differ from what the graph "
            f"says by {difference:.2g} (rounding explains {allowed:.2g}). interp.patch works on it."
        )
