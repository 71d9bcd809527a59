"""Runs of parts of a model for the evaluation: each set of edges is run once."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import CircuitError
from interp.graph import Graph, node_of
from interp.progress import Bar

__all__ = ["Runs", "blocks_of", "nodes_of", "setting_of", "touching"]

Mask = Bool[Tensor, "source dest *position"]

_TOGETHER = 128  # sets of edges that are given to the setting at once


def setting_of(
    where: Any,
    prompts: Any,
    *,
    metric: Any,
    ablation: Any,
    reference: Any = None,
    graph: Graph,
) -> Any:
    """A setting as it is, or the setting of a model on prompts.

    Args:
        graph: whose units and positions the setting's graph has.

    Raises:
        CircuitError: a setting with prompts of its own, and others beside it; or none at all.
    """
    if hasattr(where, "scores") and hasattr(where, "empty"):
        if prompts is not None and prompts is not where.prompts:
            raise CircuitError(
                "a setting has prompts of its own, but others were given too: pass the setting "
                "alone, or a model with the prompts."
            )
        return where
    if prompts is None:
        raise CircuitError(
            f"no prompts to run {getattr(where, 'name', where)} on: give prompts that the circuit "
            "was not found on."
        )
    from interp.graph import Setting  # late: circuits are read and drawn without running any model

    return Setting.of(
        where, prompts, metric=metric, ablation=ablation, reference=reference,
        units=graph.units, positions=graph.positions,
    )  # fmt: skip


class Runs:
    """Scores of sets of edges; a set asked for again is not run again.

    Attributes:
        setting: on what they are measured.
        full, empty: scores of the whole model and of no edge, for each prompt.
        count: how many sets were run.
    """

    def __init__(self, setting: Any, *, what: str = "circuits", show: bool | None = None) -> None:
        self.setting = setting
        self.graph: Graph = setting.graph
        self.full: Float[Tensor, " prompt"] = setting.full.detach().cpu()
        self.empty: Float[Tensor, " prompt"] = setting.empty.detach().cpu()
        self.count = 0
        self._what, self._show = what, show
        self._known: dict[bytes, Tensor] = {
            _key(self.graph.full): self.full, _key(self.graph.full & False): self.empty,
        }  # fmt: skip

    def __call__(
        self, masks: Iterable[Mask], *, total: int | None = None
    ) -> Float[Tensor, "mask prompt"]:
        """The score of each prompt when only these edges are kept, for each mask.

        Args:
            masks: may be a generator: few are held at a time.
            total: how many, for the bar; None: as many as there are.
        """
        total = len(masks) if total is None and isinstance(masks, Sized) else total
        keys: list[bytes] = []
        waiting: dict[bytes, Tensor] = {}
        with Bar(total=total, what=self._what, show=self._show, least=_TOGETHER) as bar:
            for mask in masks:
                keys.append(_key(mask))
                if keys[-1] not in self._known:
                    waiting[keys[-1]] = mask
                if len(waiting) == _TOGETHER:
                    self._run(waiting)
                bar.advance()
            self._run(waiting)
        if not keys:
            return self.full.new_empty(0, len(self.full))
        return torch.stack([self._known[key] for key in keys])

    def _run(self, waiting: dict[bytes, Mask]) -> None:
        """Run what waits, and let it wait no more."""
        if not waiting:
            return
        found = self.setting.scores(torch.stack(list(waiting.values()))).detach().cpu()
        self._known.update(zip(waiting, found, strict=True))
        self.count += len(waiting)
        waiting.clear()


def _key(mask: Tensor) -> bytes:
    return np.packbits(mask.cpu().numpy()).tobytes()


def touching(graph: Graph, nodes: Iterable[str]) -> Mask:
    """The edges that begin or end at one of these nodes: what it is to remove them.

    Raises:
        CircuitError: the graph has no such node.
    """
    chosen = set(nodes)
    if unknown := chosen - set(graph.nodes):
        raise CircuitError(f"no node {sorted(unknown)[0]!r} in {graph}; a node is 'a1.h3' or 'm2'.")
    writes = torch.tensor([source in chosen for source in graph.sources])
    reads = torch.tensor([node_of(dest) in chosen for dest in graph.dests])
    mask = writes[:, None] | reads[None, :]
    return graph.full & (mask[..., None] if graph.positions else mask)


def nodes_of(graph: Graph, mask: Mask) -> tuple[str, ...]:
    """The nodes at the ends of a circuit's edges, in the order in which they write."""
    flat = mask.any(-1) if graph.positions else mask
    ends = {s for s, any_ in zip(graph.sources, flat.any(1).tolist(), strict=True) if any_}
    ends |= {node_of(d) for d, any_ in zip(graph.dests, flat.any(0).tolist(), strict=True) if any_}
    return tuple(node for node in graph.nodes if node in ends)


def blocks_of(nodes: Iterable[str]) -> tuple[str, ...]:
    """Those nodes that lie in blocks: heads, MLPs, neurons and features."""
    return tuple(node for node in nodes if node not in ("embed", "pos_embed", "logits"))
