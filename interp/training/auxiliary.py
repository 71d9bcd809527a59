"""AuxK: what is left of the error is to be explained by dead features (Gao et al. 2024, A.2).

    loss = V ‖e − ê‖² / ‖e − mean(e)‖²,    ê from the ``auxk_k`` most active dead features of each token

``e`` is held constant. V is the main loss of always writing the mean: the paper's losses are divided by
it, ours is not, and so the coefficient means what it means there. Both kernels compute this: the dense
one masks the activations it has, the sparse one encodes by the dead features alone, some rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.kernels.chunks import chunk_rows
from interp.dictionaries.part import Part
from interp.training.config import TrainConfig
from interp.training.objectives.objective import Moment
from interp.training.weighting import row_weights

__all__ = ["dense_auxiliary", "sparse_auxiliary"]


def dense_auxiliary(
    config: TrainConfig,
    parts: Iterable[Part],
    pres: Sequence[Float[Tensor, "row d_sae"]],
    y: Float[Tensor, "row width"],
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
            mine, factor = _wanted(config, part, y, error, moment)
            terms.append(factor * (mine - acts @ part.dec).square().sum())
    return torch.stack(terms).sum()


@torch.no_grad()
def sparse_auxiliary(
    config: TrainConfig,
    dictionary: Dictionary,
    xs: Sequence[Float[Tensor, "row d_in"]],
    y: Float[Tensor, "row width"],
    error: Float[Tensor, "row width"],
    dead: Sequence[Bool[Tensor, " d_sae"]],
    moment: Moment,
) -> Float[Tensor, ""]:
    """The loss; its gradients are added to the parameters' ``.grad``, rows of dead features only."""
    total = error.new_zeros(())
    for part, x, asleep in zip(dictionary.parts, xs, dead, strict=True):
        index = asleep.nonzero()[:, 0]
        k = min(_k(config, part), len(index))
        if not k:
            continue
        mine, factor = _wanted(config, part, y, error, moment)
        own = [part.enc[index], part.b_enc[index], part.dec[index], dictionary.b_dec.clone()]
        leaves = [one.requires_grad_() for one in own]
        size = chunk_rows(x, own[0], None)
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            with torch.enable_grad():
                guess = _guess(leaves, x[rows], k, centre=dictionary.spec.centre)
                term = factor * (mine[rows] - guess).square().sum()
                term.backward()
            total += term.detach()
        for parameter, leaf in zip((part.enc, part.b_enc, part.dec), leaves[:3], strict=True):
            assert parameter.grad is not None
            assert leaf.grad is not None
            parameter.grad.index_add_(0, index, leaf.grad)
        if leaves[3].grad is not None:
            assert dictionary.b_dec.grad is not None
            dictionary.b_dec.grad += leaves[3].grad
    return total


def _guess(
    weights: Sequence[Tensor], x: Float[Tensor, "row d_in"], k: int, *, centre: bool
) -> Float[Tensor, "row part_width"]:
    """What the ``k`` most active of these features write."""
    enc, b_enc, dec, b_dec = weights
    pre = torch.nn.functional.linear(x - b_dec if centre else x, enc, b_enc).relu()
    values, features = pre.topk(k, sorted=False)
    return torch.zeros_like(pre).scatter(-1, features, values) @ dec


@torch.no_grad()
def _wanted(
    config: TrainConfig, part: Part, y: Tensor, error: Tensor, moment: Moment
) -> tuple[Float[Tensor, "row part_width"], Float[Tensor, ""]]:
    """The error where this part writes, and what its squared distance to ``ê`` is multiplied with.

    Over several ranks each has its rows' share of the distance; all have the same factor.
    """
    width = part.dec.shape[1]
    mine, target = error[:, -width:], y[:, -width:]
    weights = row_weights(config, y)[:, None]
    sums = torch.stack([mine.sum(0), target.sum(0)])
    moment.together.add(sums)
    means = sums / moment.rows
    left = (mine - means[0]).square().sum()
    worth = (weights * (target - means[1]).square()).sum() / moment.rows
    moment.together.add(left, worth)
    assert config.auxk is not None
    return mine, torch.where(left > 0, config.auxk * worth / left, 0.0)


def _k(config: TrainConfig, part: Part) -> int:
    return max(1, part.enc.shape[1] // 2) if config.auxk_k is None else config.auxk_k
