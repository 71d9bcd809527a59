"""The run that edges are ablated in, for some of the prompts: done once, kept for all variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.base import Base, run_base
from interp.engine.kernels import replay_kernels
from interp.graph.ablations import Ablated
from interp.graph.contributions import Read, contributions, reading, sites_read
from interp.graph.graph import Graph
from interp.graph.parts import Parts, scale_of
from interp.runs.execute import execute
from interp.runs.plan import resolve
from interp.taps.points import Key
from interp.token_batch import TokenBatch

__all__ = ["Slab", "held_scales", "run_slab"]


@dataclass(frozen=True, eq=False)
class Slab:
    """Some of the prompts.

    Attributes:
        tokens: the run that is edited.
        base: it, ready to be replayed; None where blocks are run from the embeddings on.
        start: the first column that an ablated value can differ at.
        change: what each source's term loses where its edges are ablated: what it writes less
            ``ablated``, from ``start`` on.
        ablated: what it carries where an edge is ablated; broadcasts to ``change``.
        groups: which group of positions each column belongs to, where the graph has such.
        scales: what the norms divide by, where that is held.
        logits: of the unedited run: of every position, or of each prompt's last token.
    """

    graph: Graph
    parts: Parts
    tokens: TokenBatch
    base: Base | None
    start: int
    change: Float[Tensor, "source prompt pos d_model"]
    ablated: Tensor
    groups: Int[Tensor, "prompt pos"] | None
    scales: Mapping[Key, Tensor]
    logits: Float[Tensor, "prompt pos_or_1 d_vocab"]

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, columns: Int[Tensor, " prompt"]) -> Slab:
        """The same at one column of each prompt, where nothing is read at others."""
        rows = torch.arange(len(self), device=self.change.device)

        def pick(x: Tensor, axis: int) -> Tensor:
            return x.movedim((axis, axis + 1), (0, 1))[rows, columns][:, None].movedim(
                (0, 1), (axis, axis + 1)
            )

        return replace(
            self, change=pick(self.change, 1),
            ablated=pick(self.ablated, 1) if self.ablated.dim() else self.ablated,
            groups=None if self.groups is None else pick(self.groups, 0),
            scales={key: pick(scale, 0) for key, scale in self.scales.items()},
        )  # fmt: skip


@torch.no_grad()
def run_slab(
    graph: Graph,
    parts: Parts,
    tokens: TokenBatch,
    rows: slice,
    ablated: Ablated,
    *,
    start: int,
    groups: Int[Tensor, "prompt pos"] | None,
    whole: bool,
    replays: bool,
) -> Slab:
    """Run some of the prompts, and read what their nodes write.

    Args:
        start: the first column that an ablated value can differ at, if blocks can be replayed.
        whole: keep the logits of every position.
    """
    own, anatomy = tokens.rows(rows), parts.anatomy
    keys = _keys(graph, parts)
    base, start = None, start if replays else 0
    read: Read
    if replays:
        base = run_base(anatomy, own, logits=whole, see=keys)
        seen, logits = base.seen, base.logits
        read = lambda point, layer: seen[point, layer]  # noqa: E731
    else:
        save = [point if layer is None else f"L{layer}.{point}" for point, layer in keys]
        with replay_kernels(anatomy):
            run = execute(anatomy, own, save=save, logits="all" if whole else "last",
                          rows_at_once=len(own))  # fmt: skip
        read, logits = reading(run), run.logits
    written = contributions(graph, parts, read)[:, :, start:]
    there = ablated(rows).to(written)
    return Slab(
        graph, parts, own, base, start,
        written - (there[:, :, start:] if there.dim() else there),
        there[:, :, start:] if there.dim() else there,
        None if groups is None else groups[rows, start:],
        held_scales(graph, parts, read, start), logits,
    )  # fmt: skip


def _keys(graph: Graph, parts: Parts) -> list[Key]:
    """Whole tensors of the run that must be kept."""
    sites = resolve(parts.anatomy, [*sites_read(graph), *_streams(graph, parts)])
    layers = [None if s.layer is None else s.layer.expand(graph.n_layers, "layer") for s in sites]
    return [
        (site.point, layer)
        for site, own in zip(sites, layers, strict=True) for layer in (own or (None,))
    ]  # fmt: skip


def _streams(graph: Graph, parts: Parts) -> list[str]:
    """The streams whose norms are held at their scales."""
    if not parts.frozen:
        return []
    middle = [] if graph.parallel or not graph.mlps else ["L*.resid_mid"]
    return ["L*.resid_pre", *middle, "L-1.resid_post"]


def held_scales(graph: Graph, parts: Parts, read: Read, start: int) -> dict[Key, Tensor]:
    """What each norm divides by in this run, if norms are held."""
    if not parts.frozen:
        return {}
    found: dict[Key, Tensor] = {}
    last = graph.n_layers - 1
    for layer in range(graph.n_layers):
        block = parts.anatomy.blocks[layer]
        if block.ln1 is not None:
            found["ln1.scale", layer] = scale_of(block.ln1, read("resid_pre", layer))
        if block.ln2 is not None and graph.mlps:
            stream = read("resid_pre" if graph.parallel else "resid_mid", layer)
            found["ln2.scale", layer] = scale_of(block.ln2, stream)
    if parts.anatomy.ln_final is not None:
        found["ln_final.scale", None] = scale_of(parts.anatomy.ln_final, read("resid_post", last))
    return {key: scale[:, start:] for key, scale in found.items()}
