"""AuxK: what is left of the error is to be explained by dead features (Gao et al. 2024, A.2).

    loss = ‖e − ê‖² / ‖e − mean(e)‖²,    ê from the ``auxk_k`` most active dead features of each token

``e`` is held constant. Both kernels compute this: the dense one masks the activations it has, the
sparse one encodes by the dead features alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.part import Part
from interp.training.config import TrainConfig
from interp.training.objectives.objective import Moment

__all__ = ["dense_auxiliary", "sparse_auxiliary"]


def dense_auxiliary(
    config: TrainConfig,
    parts: Sequence[Part],
    pres: Sequence[Float[Tensor, "row d_sae"]],
    error: Float[Tensor, "row width"],
    dead: Sequence[Bool[Tensor, " d_sae"]],
    moment: Moment,
) -> Float[Tensor, ""]:
    """The loss, from pre-activations of all features; its gradients flow through them."""
    terms = [error.new_zeros(())]
    for part, pre, asleep in zip(parts, pres, dead, strict=True):
        k = min(_k(config, part), int(asleep.sum()))
        if k:
            masked = torch.where(asleep, pre.relu(), -torch.inf)
            values, features = masked.topk(k, sorted=False)
            acts = torch.zeros_like(pre).scatter(-1, features, values)
            terms.append(_scored(config, acts @ part.dec, error, moment))
    return torch.stack(terms).sum()


@torch.no_grad()
def sparse_auxiliary(
    config: TrainConfig,
    dictionary: Dictionary,
    xs: Sequence[Float[Tensor, "row d_in"]],
    error: Float[Tensor, "row width"],
    dead: Sequence[Bool[Tensor, " d_sae"]],
    moment: Moment,
) -> Float[Tensor, ""]:
    """The loss; its gradients are added to the parameters' ``.grad``, rows of dead features only."""
    terms = [error.new_zeros(())]
    for part, x, asleep in zip(dictionary.parts, xs, dead, strict=True):
        index = asleep.nonzero()[:, 0]
        k = min(_k(config, part), len(index))
        if not k:
            continue
        own = [part.enc[index], part.b_enc[index], part.dec[index], dictionary.b_dec.clone()]
        with torch.enable_grad():
            enc, b_enc, dec, b_dec = leaves = [one.requires_grad_() for one in own]
            centred = x - b_dec if dictionary.spec.centre else x
            pre = torch.nn.functional.linear(centred, enc, b_enc).relu()
            values, features = pre.topk(k, sorted=False)
            acts = torch.zeros_like(pre).scatter(-1, features, values)
            term = _scored(config, acts @ dec, error, moment)
        grads = torch.autograd.grad(term, leaves, allow_unused=True)
        targets = (part.enc, part.b_enc, part.dec)
        for parameter, grad in zip(targets, grads[:3], strict=True):
            assert parameter.grad is not None
            assert grad is not None
            parameter.grad.index_add_(0, index, grad)
        if grads[3] is not None:
            assert dictionary.b_dec.grad is not None
            dictionary.b_dec.grad += grads[3]
        terms.append(term.detach())
    return torch.stack(terms).sum()


def _scored(
    config: TrainConfig, guess: Float[Tensor, "row part_width"], error: Tensor, moment: Moment
) -> Float[Tensor, ""]:
    """The share of the error's variance that is left, times the coefficient.

    Over several ranks each has its rows' share of the numerator; all have the whole denominator.
    """
    mine = error[:, error.shape[1] - guess.shape[1] :]
    total = mine.sum(0)
    moment.together.add(total)
    variance = (mine - total / moment.rows).square().sum()
    moment.together.add(variance)
    assert config.auxk is not None
    return torch.nan_to_num(config.auxk * (mine - guess).square().sum() / variance)


def _k(config: TrainConfig, part: Part) -> int:
    return max(1, part.enc.shape[1] // 2) if config.auxk_k is None else config.auxk_k
