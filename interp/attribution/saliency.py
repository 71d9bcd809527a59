"""Input gradients: which tokens of a prompt is an answer sensitive to?

The gradient of a score at a token's embedding says how the score would change if the embedding moved. One number a
token is made of it:

    gradient           ‖∂score/∂e‖₂     how sensitive; never negative
    gradient x input   e · ∂score/∂e    first-order effect of the embedding itself against 0; signed

The second is what ``interp.attribute(model, prompts, "embed", source="zero", positions="each")`` estimates, with the
sign turned; other sources and integrated gradients are there. (From an embedding of 0 the latter hardly converge in a model
whose first block begins with a norm: near 0 it turns all it is given into the same length.)

They are the oldest attributions, and look plausible where they are wrong: :mod:`interp.attribution.sanity` asks
whether they depend on what the model has learned at all.

Sources: Simonyan et al. 2013, arXiv:1312.6034; Shrikumar et al. 2016, arXiv:1605.01713 (gradient x input).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp import metrics
from interp.errors import MetricError
from interp.metrics import Metric
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.runs.frozen import frozen

__all__ = ["METHODS", "Saliency", "saliency"]

Saliency = Literal["gradient", "gradient x input"]
METHODS: Final[tuple[Saliency, ...]] = ("gradient", "gradient x input")


@torch.inference_mode(False)  # a caller's would leave no gradients
def saliency(
    model: Model,
    prompts: Prompts,
    method: Saliency = "gradient x input",
    *,
    metric: str | Metric | Callable[..., Tensor] = "log_prob",
    batch: int = 32,
) -> Float[Tensor, "prompt pos"]:
    """The attribution of each token's embedding, in the metric's unit (``"gradient"``: per unit of embedding).

    NaN at padding. The embedding is the token's (``embed``); positions that are added to it are not moved.

    Args:
        metric: ``log_prob``, ``logit_diff``, ``prob`` or another that has a gradient; of the clean side.
        batch: prompts at a time.

    Raises:
        MetricError: an unknown method, a metric without a gradient, or one that needs what the prompts lack.
        SiteError: a model whose embedding cannot be read.
    """
    if method not in METHODS or batch < 1:
        raise MetricError(
            f"saliency(method={method!r}, batch={batch}); expected one of {', '.join(METHODS)}, and 1 or more."
        )
    how, found = metrics.resolve(metric), []
    with frozen(model.hf):
        for start in range(0, len(prompts), batch):
            part = prompts.subset(slice(start, start + batch))
            x, gradient = _gradient(model, part, how)
            one = gradient.norm(dim=-1) if method == "gradient" else (x * gradient).sum(-1)
            found.append(torch.where(part.clean.mask.to(one.device), one, torch.nan).cpu())
    return torch.cat(found)


def _gradient(
    model: Model, prompts: Prompts, metric: Metric
) -> tuple[Float[Tensor, "prompt pos d_model"], Float[Tensor, "prompt pos d_model"]]:
    """The embeddings, and the gradient there."""
    run = model.run(prompts, save="embed", edit={"embed": _leaf}, grad=True, batch=len(prompts))
    score = metrics.evaluate(metric, run.logits, prompts)
    if not score.requires_grad:
        raise MetricError(
            f"metric {metric.name!r} has no gradient to attribute by: use 'log_prob', 'logit_diff' or 'prob'."
        )
    x = run.cache["embed"]
    (gradient,) = torch.autograd.grad(score.sum(), x)
    return x.detach().float(), gradient.float()


def _leaf(x: Tensor) -> Tensor:
    """Where the graph begins: no weight has a gradient here."""
    return x.detach().requires_grad_(True)
