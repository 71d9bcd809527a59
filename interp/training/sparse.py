"""The fast kernel: one dense product by the encoder, and from there on active features only.

With k of d_sae features active, five of the six products of a dense step (the decoder, its gradient,
the gradients of activations and of the encoder) are almost all zeros. Here decoding is a weighted sum
of k rows, and gradients are sums over the tokens at which a feature was active.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.prefixes import split_by_group
from interp.dictionaries.kernels.sparse import backward, decode
from interp.training.auxiliary import sparse_auxiliary
from interp.training.objectives.objective import Moment, Objective
from interp.training.results import Outcome, Picked
from interp.training.weighting import row_weights

__all__ = ["sparse_step"]


@torch.no_grad()
def sparse_step(
    dictionary: Dictionary,
    objective: Objective,
    xs: Sequence[Float[Tensor, "row d_in"]],
    y: Float[Tensor, "row width"],
    dead: Sequence[Bool[Tensor, " d_sae"]] | None,
    moment: Moment,
) -> Outcome:
    """Fill the parameters' ``.grad``, which must exist, with this batch's gradients."""
    parts = dictionary.parts
    centred = [dictionary.centred(x) for x in xs]
    codes = [objective.select(part, x, moment) for part, x in zip(parts, centred, strict=True)]
    ends = objective.boundaries()
    groups = [[c] if len(ends) == 1 else split_by_group(c, ends) for c in codes]
    weights = row_weights(objective.config, y)
    errors = _errors(dictionary, groups, xs[0], y)
    squares = [(weights * e.square().sum(-1)).sum() for e in errors]
    terms = {"error": torch.stack(squares).mean() / moment.rows}
    error = errors[-1]
    slope = weights.mul(-2 / (moment.rows * len(errors)))[:, None]  # d loss / d ŷ = −2 w e
    towards = _from_behind([slope * e for e in errors])
    _backward(dictionary, groups, xs, centred, towards)
    if dead is not None:
        terms["auxk"] = sparse_auxiliary(objective.config, dictionary, xs, y, error, dead, moment)
    return Outcome(terms, error.square().sum(), error, _picked(codes))


def _errors(
    dictionary: Dictionary, groups: Sequence[Sequence[Codes]], x: Tensor, y: Tensor
) -> list[Float[Tensor, "row width"]]:
    """``y − ŷ`` by each prefix of the features."""
    parts = dictionary.parts
    left = y - dictionary.b_dec
    if dictionary.W_skip is not None:
        left -= x @ dictionary.W_skip.T
    errors = []
    for i in range(len(groups[0])):
        for part, own in zip(parts, groups, strict=True):
            left[:, y.shape[1] - part.dec.shape[1] :] -= decode(own[i], part.dec)
        errors.append(left.clone() if i + 1 < len(groups[0]) else left)
    return errors


def _from_behind(gradients: list[Tensor]) -> list[Tensor]:
    """For each group, the sum of the gradients of all prefixes that have it."""
    for i in range(len(gradients) - 2, -1, -1):
        gradients[i] = gradients[i] + gradients[i + 1]
    return gradients


def _backward(
    dictionary: Dictionary,
    groups: Sequence[Sequence[Codes]],
    xs: Sequence[Tensor],
    centred: Sequence[Tensor],
    towards: Sequence[Float[Tensor, "row width"]],
) -> None:
    b_dec = _grad(dictionary.b_dec)
    b_dec.copy_(towards[0].sum(0))
    if dictionary.W_skip is not None:
        torch.mm(towards[0].T, xs[0], out=_grad(dictionary.W_skip))
    for part, own, x in zip(dictionary.parts, groups, centred, strict=True):
        for i, (codes, toward) in enumerate(zip(own, towards, strict=True)):
            start = toward.shape[1] - part.dec.shape[1]
            to_bias = backward(
                codes, x, toward[:, start:].contiguous(), part.dec,
                d_enc=_grad(part.enc), d_b_enc=_grad(part.b_enc), d_dec=_grad(part.dec), add=i > 0,
            )  # fmt: skip
            if dictionary.spec.centre:
                b_dec -= to_bias @ part.enc


def _picked(codes: Sequence[Codes]) -> Picked:
    counts, least = [], []
    for one in codes:
        active = one.values > 0
        counts.append(torch.bincount(one.features[active], minlength=one.d_sae))
        least.append(torch.where(active, one.values, torch.inf).min())
    return Picked(counts, least)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
