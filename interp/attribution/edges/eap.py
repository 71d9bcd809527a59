"""Edge attribution patching: every edge's effect, to first order, from one backward pass.

    score(u → v) = (ablated value of u - value of u) · ∂metric/∂(what v reads)

summed over positions and the stream's dimensions: metric(edge ablated) - metric, to first order.

- ``eap``: the gradient of the run itself. Syed et al. 2023 (arXiv:2310.10348), Eq. 4.
- ``eap-ig``: the gradient averaged over runs whose *token embeddings* lie on the line from the
  ablated embeddings (α = 0) to the run's own (α = 1); position embeddings stay. Hanna et al. 2024
  (arXiv:2403.17806), Eq. 3. Their code takes α = 0, 1/m, …, (m-1)/m (``alphas="left"``); the right
  sum is 1/m, …, 1, and ``"midpoint"`` (1/2m, 3/2m, …) has the smallest error for a given number of
  steps.

Where dictionaries stand with error nodes, errors are constants of the gradient (Marks et al. 2024,
arXiv:2403.19647), while exact ablation lets them change: there the estimate is another quantity.

Every edge out of a node is a term of what the node's output does, so a node's scores sum to the
node's own attribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.attribution.edges.trace import Trace, trace
from interp.graph import Setting
from interp.token_batch import TokenBatch

__all__ = [
    "ALPHAS", "OFFSETS", "Alphas", "Found", "by_gradient", "by_interpolation", "contract", "product"
]  # fmt: skip

Alphas = Literal["left", "right", "midpoint"]
ALPHAS: Final = ("left", "right", "midpoint")
#: Where the first step lies, in steps.
OFFSETS: Final = {"left": 0.0, "right": 1.0, "midpoint": 0.5}
Scores = Float[Tensor, "prompt source dest *position"]


#: Scores of edges; of the unedited run; of the run with every edge ablated, where that is known.
Found = tuple[Scores, Float[Tensor, " prompt"], Float[Tensor, " prompt"] | None]


def by_gradient(setting: Setting, rows: slice, tokens: TokenBatch) -> Found:
    """``eap`` for some prompts."""
    run = trace(setting, rows, tokens)
    written = run.written()
    change = written.neg_().add_(setting.ablated(rows).to(written))  # in its place: it is large
    empty = run.emptied(rows, tokens, change)
    return contract(setting, rows, run, change), run.scores.detach(), empty


def by_interpolation(
    setting: Setting,
    rows: slice,
    tokens: TokenBatch,
    steps: int,
    alphas: Alphas,
    advance: Callable[[int], None],
) -> Found:
    """``eap-ig`` for some prompts."""
    own = trace(setting, rows, tokens)
    written, ablated = own.written(), setting.ablated(rows)
    change = ablated.to(written) - written
    scores, held = own.scores.detach(), own.scales()
    empty = own.emptied(rows, tokens, change)
    del own
    total: Tensor | None = None
    for step in range(steps):
        alpha = (step + OFFSETS[alphas]) / steps
        line = written[0] + (1 - alpha) * change[0]
        run = trace(setting, rows, tokens, embed=line, held=held)
        part = contract(setting, rows, run, change)
        total = part if total is None else total + part
        advance(1)
    assert total is not None  # at least one step
    return total / steps, scores, empty


@torch.no_grad()
def contract(
    setting: Setting, rows: slice, run: Trace, change: Float[Tensor, "source prompt pos d_model"]
) -> Scores:
    """(Change of every source) · (gradient at every destination): one product for each reading."""
    graph = setting.graph
    out = change.new_zeros(run.scores.shape[0], *graph.full.shape)
    groups = None if setting.groups is None else setting.groups[rows]
    for reading in run.readings():
        before = slice(0, reading.sources)
        own = product(change[before], reading.gradient, groups, len(graph.positions))
        out[:, before, reading.dests] = own
    return out


def product(
    change: Float[Tensor, "source prompt pos d_model"],
    gradient: Float[Tensor, "dest prompt pos d_model"],
    groups: Int[Tensor, "prompt pos"] | None,
    n_groups: int,
) -> Float[Tensor, "prompt source dest *position"]:
    """Every change along every gradient, summed over columns, or over those of each group."""
    by_prompt, gradient = change.transpose(0, 1), gradient.transpose(0, 1).to(change)
    if groups is None:
        return torch.bmm(by_prompt.flatten(2), gradient.flatten(2).transpose(1, 2))
    each = torch.einsum("bspd,bkpd->bskp", by_prompt, gradient)
    parts = [(each * (groups == n)[:, None, None]).sum(-1) for n in range(n_groups)]
    return torch.stack(parts, -1)
