"""The reference kernel: every activation exists, and autograd finds the gradients.

Rows are taken in chunks where the loss is a sum over rows, so that [batch, d_sae] matrices stay small.
Picking from a whole batch, or reviving dead features by a loss that is normalised over it, takes the
whole batch at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.training.auxiliary import dense_auxiliary
from interp.training.objectives.objective import Moment, Objective
from interp.training.results import Outcome, Picked
from interp.training.weighting import row_weights
from interp.training.writing import written

__all__ = ["dense_step"]

#: Rows at a time where that is allowed: a chunk of pre-activations has this many numbers, about.
_CHUNK = 1 << 22


def dense_step(
    dictionary: Dictionary,
    objective: Objective,
    xs: Sequence[Float[Tensor, "row d_in"]],
    y: Float[Tensor, "row width"],
    dead: Sequence[Bool[Tensor, " d_sae"]] | None,
    moment: Moment,
) -> Outcome:
    """Fill the parameters' ``.grad``, which must exist, with this batch's gradients."""
    for parameter in dictionary.parameters():
        assert parameter.grad is not None
        parameter.grad.zero_()
    whole = objective.config.picks or dead is not None
    size = len(y) if whole else max(1, _CHUNK // dictionary.d_sae)
    parts = [
        _rows(dictionary, objective, [x[i : i + size] for x in xs], y[i : i + size], dead, moment)
        for i in range(0, len(y), size)
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _rows(
    dictionary: Dictionary,
    objective: Objective,
    xs: Sequence[Tensor],
    y: Tensor,
    dead: Sequence[Tensor] | None,
    moment: Moment,
) -> Outcome:
    parts = dictionary.parts
    with torch.enable_grad():
        pres = [part.pre(dictionary.centred(x)) for part, x in zip(parts, xs, strict=True)]
        acts = [objective.activate(p, pre, moment) for p, pre in zip(parts, pres, strict=True)]
        weights = row_weights(objective.config, y)
        errors = [y - one for one in _prefixes(dictionary, objective, acts, xs[0])]
        squares = [(weights * error.square().sum(-1)).sum() for error in errors]
        terms = {"error": torch.stack(squares).mean() / moment.rows}
        for name, term in objective.penalty(dictionary, pres, acts, y, moment).items():
            terms[name] = term / moment.rows
        error = errors[-1].detach()
        if dead is not None:
            terms["auxk"] = dense_auxiliary(objective.config, parts, pres, y, error, dead, moment)
        torch.stack(list(terms.values())).sum().backward()
    picked = Picked(
        [(act > 0).sum(0) for act in acts],
        [torch.where(act > 0, act, torch.inf).min().detach() for act in acts],
    )
    return Outcome({n: t.detach() for n, t in terms.items()}, error.square().sum(), error, picked)


def _prefixes(
    dictionary: Dictionary, objective: Objective, acts: Sequence[Tensor], x: Tensor
) -> list[Float[Tensor, "row width"]]:
    """What each prefix of the features writes, the last being all of them."""
    parts = dictionary.parts
    out = []
    for end in objective.boundaries():
        here = written([a[:, :end] for a in acts], [p.dec[:end] for p in parts], dictionary.b_dec)
        if dictionary.W_skip is not None:
            here = here + x @ dictionary.W_skip.T
        out.append(here)
    return out


def _joined(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        {name: torch.stack([p.terms[name] for p in parts]).sum() for name in parts[0].terms},
        torch.stack([p.squared_error for p in parts]).sum(),
        torch.cat([p.error for p in parts]),
        Picked(
            [torch.stack(c).sum(0) for c in zip(*(p.picked.counts for p in parts), strict=True)],
            [torch.stack(c).min() for c in zip(*(p.picked.least for p in parts), strict=True)],
        ),
    )
