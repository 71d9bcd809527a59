"""Edge attribution patching on a HookedTransformer, in the way of its authors' code.

Hanna et al.'s EAP-IG (github.com/hannamw/EAP-IG, ``make_hooks_and_matrices``): the model splits its
stream into a copy for each head's queries, keys and values, and keeps each head's result. Forward
hooks add what nodes write in the corrupted run to one matrix [batch, pos, node, d_model] and take
what they write in the clean run away; a backward hook at each destination multiplies its gradient
with the nodes before it. Their node ``input`` is the token embedding; positions belong to none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import einsum
from peers import Task

import interp

Hooks = list[tuple[str, Callable[..., Any]]]


class Eap:
    """One pass over all edges; a run without gradients, and one with them.

    The second clean run of the original, for metrics that compare with it, is left out.

    Args:
        model: a HookedTransformer. Its splitting is turned on only while this runs.
        frozen: without the gradients of weights, which nobody reads.
    """

    def __init__(self, model: Any, *, frozen: bool) -> None:
        self.model, self.frozen = model, frozen
        self.layers, self.heads = model.cfg.n_layers, model.cfg.n_heads
        self.name = "TransformerLens, frozen" if frozen else "TransformerLens"
        self.how = (
            f"{self.name}: the same with the weights frozen"
            if frozen
            else f"{self.name}: HookedTransformer with split q/k/v inputs, attention results and MLP inputs, "
            "hooks as in EAP-IG's code; weights with gradients, its default"
        )

    def __call__(self, pairs: interp.Prompts) -> torch.Tensor:
        """Scores [source, dest]: ``input``, then block by block its heads and its MLP."""
        task = Task(pairs, self.model.cfg.device)
        self._split(True)
        self.model.requires_grad_(not self.frozen)
        scores, difference = self._matrices(task.clean)
        corrupted, clean, backward = self._hooks(difference, scores)
        with torch.inference_mode(), self.model.hooks(fwd_hooks=corrupted):
            self.model(task.corrupted)
        begin: Hooks = [("hook_embed", _start)] if self.frozen else []
        with self.model.hooks(fwd_hooks=[*clean, *begin], bwd_hooks=backward):
            task.score(self.model(task.clean)).backward()
        self.model.zero_grad(set_to_none=True)
        self._split(False)
        return scores

    def _split(self, on: bool) -> None:
        self.model.set_use_split_qkv_input(on)
        self.model.set_use_attn_result(on)
        self.model.set_use_hook_mlp_in(on)

    def _matrices(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sources = 1 + self.layers * (self.heads + 1)
        dests = self.layers * (3 * self.heads + 1) + 1
        width = self.model.cfg.d_model
        scores = torch.zeros(sources, dests, device=ids.device)
        return scores, torch.zeros(*ids.shape, sources, width, device=ids.device)

    def _hooks(self, difference: torch.Tensor, scores: torch.Tensor) -> tuple[Hooks, Hooks, Hooks]:
        def write(index: Any, tensor: torch.Tensor, hook: Any, *, sign: int) -> None:
            difference[:, :, index] += sign * tensor.detach()

        def read(sources: int, dests: Any, gradient: torch.Tensor, hook: Any) -> None:
            gradient = gradient.detach()
            own = gradient.unsqueeze(2) if gradient.ndim == 3 else gradient
            names = "batch pos source hidden, batch pos dest hidden -> source dest"
            found = einsum(difference[:, :, :sources], own, names)
            scores[:sources, dests] += found.squeeze(1)

        written, reading = self._places()
        forward = [
            [(name, partial(write, index, sign=sign)) for name, index in written]
            for sign in (1, -1)
        ]
        backward = [(name, partial(read, n, dests)) for name, n, dests in reading]
        return forward[0], forward[1], backward

    def _places(self) -> tuple[list[tuple[str, Any]], list[tuple[str, int, Any]]]:
        """Hook points at which sources write, and at which destinations read how many of them."""
        written: list[tuple[str, Any]] = [("hook_embed", 0)]
        reading: list[tuple[str, int, Any]] = []
        source, dest = 1, 0
        for layer in range(self.layers):
            block = f"blocks.{layer}"
            for channel in "qkv":
                at = slice(dest, dest + self.heads)
                reading.append((f"{block}.hook_{channel}_input", source, at))
                dest += self.heads
            before = source if self.model.cfg.parallel_attn_mlp else source + self.heads
            written.append((f"{block}.attn.hook_result", slice(source, source + self.heads)))
            written.append((f"{block}.hook_mlp_out", source + self.heads))
            reading.append((f"{block}.hook_mlp_in", before, dest))
            source, dest = source + self.heads + 1, dest + 1
        reading.append((f"blocks.{self.layers - 1}.hook_resid_post", source, dest))
        return written, reading


def _start(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
    """With frozen weights, the graph begins at the embeddings."""
    return tensor.requires_grad_()
