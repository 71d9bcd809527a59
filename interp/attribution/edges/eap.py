"""Edge attribution patching: every edge's effect, to first order, from one backward pass.

    score(u → v) = (ablated value of u - value of u) · ∂metric/∂(what v reads)

summed over positions and the stream's dimensions: metric(edge ablated) - metric, to first order.

- ``eap``: the gradient of the run itself. Syed et al. 2023 (arXiv:2310.10348), Eq. 4.
- ``eap-ig``: the gradient averaged over runs whose *token embeddings* lie on the line from the
  ablated embeddings (α = 0) to the run's own (α = 1); position embeddings stay. Hanna et al. 2024
  (arXiv:2403.17806), Eq. 3. Their code takes α = 0, 1/m, …, (m-1)/m (``alphas="left"``); the right
  sum is 1/m, …, 1, and ``"midpoint"`` (1/2m, 3/2m, …) has the smallest error for a given number of
  steps.

Every edge out of a node is a term of what the node's output does, so a node's scores sum to the
node's own attribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.attribution.edges.trace import Trace, trace
from interp.graph import Setting
from interp.token_batch import TokenBatch

__all__ = ["ALPHAS", "Alphas", "by_gradient", "by_interpolation"]

Alphas = Literal["left", "right", "midpoint"]
ALPHAS: Final = ("left", "right", "midpoint")
Scores = Float[Tensor, "prompt source dest *position"]


def by_gradient(
    setting: Setting, rows: slice, tokens: TokenBatch
) -> tuple[Scores, Float[Tensor, " prompt"]]:
    """``eap`` for some prompts: scores of the edges, and of the unedited run."""
    run = trace(setting, rows, tokens)
    written = run.written()
    return contract(
        setting, rows, run, setting.ablated(rows).to(written) - written
    ), run.scores.detach()


def by_interpolation(
    setting: Setting,
    rows: slice,
    tokens: TokenBatch,
    steps: int,
    alphas: Alphas,
    advance: Callable[[int], None],
) -> tuple[Scores, Float[Tensor, " prompt"]]:
    """``eap-ig`` for some prompts."""
    own = trace(setting, rows, tokens)
    written, ablated = own.written(), setting.ablated(rows)
    change = ablated.to(written) - written
    scores = own.scores.detach()
    del own
    total: Tensor | None = None
    for step in range(steps):
        alpha = (step + {"left": 0.0, "right": 1.0, "midpoint": 0.5}[alphas]) / steps
        run = trace(setting, rows, tokens, embed=written[0] + (1 - alpha) * change[0])
        part = contract(setting, rows, run, change)
        total = part if total is None else total + part
        advance(1)
    assert total is not None  # at least one step
    return total / steps, scores


@torch.no_grad()
def contract(
    setting: Setting, rows: slice, run: Trace, change: Float[Tensor, "source prompt pos d_model"]
) -> Scores:
    """(Change of every source) · (gradient at every destination): one product for each reading."""
    graph = setting.graph
    n = run.scores.shape[0]
    out = change.new_zeros(n, *graph.full.shape)
    by_prompt = change.transpose(0, 1)  # [prompt, source, pos, d_model]
    for reading in run.readings():
        gradient = reading.gradient.transpose(0, 1)
        before = by_prompt[:, : reading.sources]
        if setting.groups is None:
            out[:, : reading.sources, reading.dests] = torch.bmm(
                before.flatten(2), gradient.flatten(2).transpose(1, 2).to(before)
            )
            continue
        groups = setting.groups[rows]
        each = torch.einsum("bspd,bkpd->bskp", before, gradient.to(before))
        for group in range(len(graph.positions)):
            there = each * (groups == group)[:, None, None]
            out[:, : reading.sources, reading.dests, group] = there.sum(-1)
    return out
