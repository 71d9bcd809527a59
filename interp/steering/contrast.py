"""``interp.steering_vector``: which direction tells these prompts from those?

1. Run the positive and the negative prompts and read one activation of each: at a position, or
   the mean over its tokens.
2. The vector is the difference of the two means. Pairs need not line up; where they do, it is
   the mean of their differences.
3. Do the same on two random halves, many times: their cosine says how far the vector depends on
   which prompts were taken.

Sources: Turner et al. 2023, arXiv:2308.10248 (one pair); Rimsky et al. 2023, arXiv:2312.06681
(many pairs); Marks & Tegmark 2023, arXiv:2310.06824 (the difference of means as a direction that
acts causally); Zou et al. 2023, arXiv:2310.01405 (the principal component of pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import PromptError, RunError, SiteError
from interp.models.model import Model
from interp.prompts.positions import resolve_columns
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.execute import execute
from interp.runs.plan import resolve
from interp.sites import Site
from interp.steering.vector import SteeringVector
from interp.token_batch import TokenBatch

__all__ = ["steering_vector"]

Method = Literal["mean_difference", "pca"]
Columns = dict[str, Tensor]  # of each name, a column for each prompt
_CHUNK = 64  # prompts at a time: no more than one chunk's activations is ever held


@torch.no_grad()
def steering_vector(
    model: Model,
    positive: Any,
    negative: Any,
    site: str | Site | Sequence[str | Site],
    *,
    positions: int | str = "END",
    method: Method = "mean_difference",
    normalise: bool = False,
    splits: int = 20,
    seed: int = 0,
) -> SteeringVector:
    """The direction from the negative prompts to the positive ones, at each of some sites.

    >>> interp.steering_vector(model, ["I love it"], ["I hate it"], "L2.resid_pre")  # doctest: +SKIP
    SteeringVector(L2.resid_pre; mean_difference at END, 1 + 1 prompts; length 0.4 of ...)

    Args:
        positive, negative: texts, tokens, or Prompts (their clean side). ``negative=None`` takes the
            corrupted side of ``positive``.
        site: ``"L2.resid_pre"``, or several (``"L*.resid_pre"``): a vector for each, alone. Any site of
            one vector per position: a branch, a single head's ``z``, neurons.
        positions: where to read: a number among real tokens, negative from the end, a name that the
            prompts define, or ``"all"``: the mean over each prompt's tokens but its BOS.
        method: ``"mean_difference"``, or ``"pca"``: the first principal component, around zero, of the
            differences of pairs, with the sign and length of the mean difference along it.
        normalise: make each vector of length 1; ``strength`` is then in the activations' unit.
        splits: how many random halvings ``reliability`` is the mean of.
        seed: of the halvings.

    Raises:
        SiteError: a site does not exist, or holds no single vector at each position.
        PromptError: a position that the prompts do not have; no corrupted side to take;
            a vector of length 0 that cannot be normalised.
        RunError: an unknown method, several positions, or pairs of unequal number for ``"pca"``.
    """
    if method not in get_args(Method):
        raise RunError(f"method={method!r}; expected 'mean_difference' or 'pca'.")
    if isinstance(splits, bool) or not hasattr(splits, "__index__") or splits < 1:
        raise RunError(f"splits={splits!r}; expected a number of random halvings, at least 1.")
    if not isinstance(positions, int | str):
        raise RunError(
            f"positions={positions!r}; expected one number or name, or 'all' for the mean over tokens."
        )
    sites = _sites(model, site)
    first, second = _sides(model, positive, negative)
    high = _activations(model, *first, sites, positions)
    low = _activations(model, *second, sites, positions)
    direction = _pca if method == "pca" else _mean_difference
    if method == "pca" and high.shape[0] != low.shape[0]:
        raise RunError(
            f"method='pca' takes pairs, and there are {len(high)} positive and {len(low)} negative "
            "prompts: give as many of each, in the same order, or method='mean_difference'."
        )
    values = direction(high, low)
    if normalise:
        values = _unit(values, sites)
    return SteeringVector(
        sites=tuple(str(one) for one in sites),
        values=values.float(),
        typical_norm=torch.cat([high, low]).norm(dim=-1).mean(0).float(),
        reliability=_reliability(high, low, direction, splits, seed).float(),
        positions=positions,
        method=method,
        counts=(len(high), len(low)),
        provenance=Provenance.of(
            model, first[2], seed=seed, verb="steering_vector",
            sites=[str(one) for one in sites], positions=positions, method=method,
            normalise=normalise, splits=splits, negative=second[2].hash,
        ),
    )  # fmt: skip


def _sites(model: Model, given: Any) -> tuple[Site, ...]:
    """Sites that hold one vector at each position."""
    sites = resolve(model.anatomy, given)
    if not sites:
        raise SiteError("no sites were given; expected one such as 'L2.resid_pre'.")
    for site in sites:
        headed = site.kind.headed and (site.head is None or not site.head.single)
        if "pos" not in site.kind.axes or headed or site.unit is not None:
            raise SiteError(
                f"{str(site)!r} does not hold one vector at each position; expected a site such as "
                "'L2.resid_pre', 'L1.mlp_out' or a single head's 'L1.H0.z'."
            )
        if site.position is not None:
            raise SiteError(
                f"{str(site)!r} names a position: write {str(site.whole)!r} and positions="
                f"{site.position!r}; the vector can then be added anywhere."
            )
    return sites


def _sides(
    model: Model, positive: Any, negative: Any
) -> tuple[tuple[TokenBatch, Columns, Prompts], tuple[TokenBatch, Columns, Prompts]]:
    """The tokens and the named columns of both sets."""
    high = positive if isinstance(positive, Prompts) else model.prompts(positive)
    if negative is None:
        if high.corrupted is None:
            raise PromptError(
                "negative=None takes the corrupted side of the prompts, and these have none: "
                "give the negative prompts."
            )
        low, tokens = high, high.corrupted
    else:
        low = negative if isinstance(negative, Prompts) else model.prompts(negative)
        tokens = low.clean
    return (high.clean, dict(high.positions), high), (tokens, dict(low.positions), low)


def _activations(
    model: Model,
    tokens: TokenBatch,
    named: Columns,
    prompts: Prompts,
    sites: tuple[Site, ...],
    position: int | str,
) -> Float[Tensor, "prompt site d"]:
    """Each prompt's activation, in float64 on the CPU."""
    average = position == "all"
    counted = _counted(model, tokens) if average else None
    wanted = sites if average else tuple(site.at(position=position) for site in sites)
    rows = []
    for start in range(0, len(tokens), _CHUNK):
        part = slice(start, start + _CHUNK)
        batch = tokens.rows(part).to(model.device)
        columns = {name: column[part] for name, column in named.items()}
        cache = execute(
            model.anatomy, batch, save=wanted, logits="none",
            columns=partial(resolve_columns, tokens=batch, named=columns),
        ).cache  # fmt: skip
        found = [cache[site].double().cpu() for site in wanted]
        if counted is not None:
            found = [_mean_over(x, counted[part]) for x in found]
        widths = {x.shape[-1] for x in found}
        if len(widths) > 1:
            raise SiteError(
                f"sites of widths {sorted(widths)} cannot share one SteeringVector: make one for each."
            )
        rows.append(torch.stack(found, 1))
    return torch.cat(rows)


def _unit(values: Float[Tensor, "site d"], sites: Sequence[Site]) -> Float[Tensor, "site d"]:
    """Vectors of length 1.

    Raises:
        PromptError: one has no direction.
    """
    norm = values.norm(dim=-1, keepdim=True)
    empty = (norm[:, 0] == 0).nonzero().flatten().tolist()
    if empty:
        raise PromptError(
            f"the vector of {str(sites[empty[0]])!r} has length 0: both sets hold the same there, as "
            "layer 0 does where the token is the same. Read at another position or layer."
        )
    return values / norm


def _counted(model: Model, tokens: TokenBatch) -> Bool[Tensor, "prompt pos"]:
    """Which tokens a mean over a prompt counts: the real ones, without a BOS.

    Raises:
        PromptError: a prompt has no other token.
    """
    mask = tokens.mask.cpu().clone()
    bos = model.tokens.bos_id
    if bos is not None:
        rows, first = torch.arange(len(tokens)), tokens.first.cpu()
        mask[rows, first] &= tokens.ids.cpu()[rows, first] != bos
    empty = (~mask.any(-1)).nonzero().flatten().tolist()
    if empty:
        raise PromptError(
            f"prompt {empty[0]} has no token besides its BOS, so positions='all' has nothing to "
            "average: give longer prompts, or positions='END'."
        )
    return mask


def _mean_over(
    x: Float[Tensor, "prompt pos d"], counted: Bool[Tensor, "prompt pos"]
) -> Float[Tensor, "prompt d"]:
    kept = x.masked_fill(~counted[..., None], 0.0)  # what stands at padding may be anything
    return kept.sum(1) / counted.sum(1, keepdim=True)


def _mean_difference(
    high: Float[Tensor, "a site d"], low: Float[Tensor, "b site d"]
) -> Float[Tensor, "site d"]:
    return high.mean(0) - low.mean(0)


def _pca(
    high: Float[Tensor, "pair site d"], low: Float[Tensor, "pair site d"]
) -> Float[Tensor, "site d"]:
    """The axis that the differences lie along, whichever way round each pair is."""
    difference = (high - low).transpose(0, 1)
    axis = torch.linalg.svd(difference, full_matrices=False).Vh[:, 0]
    return (difference.mean(1) * axis).sum(-1, keepdim=True) * axis


def _reliability(
    high: Float[Tensor, "a site d"],
    low: Float[Tensor, "b site d"],
    direction: Callable[[Tensor, Tensor], Tensor],
    splits: int,
    seed: int,
) -> Float[Tensor, " site"]:
    """Mean cosine between the vectors of two random halves."""
    if min(len(high), len(low)) < 2:
        return torch.full((high.shape[1],), torch.nan, dtype=high.dtype)
    generator, cosines = torch.Generator().manual_seed(seed), []
    for _ in range(splits):
        order = torch.randperm(len(high), generator=generator)
        # Equal numbers may be pairs: those stay together.
        other = order if len(low) == len(high) else torch.randperm(len(low), generator=generator)
        a, b = len(high) // 2, len(low) // 2
        first = direction(high[order[:a]], low[other[:b]])
        second = direction(high[order[a:]], low[other[b:]])
        cosines.append(torch.nn.functional.cosine_similarity(first, second, dim=-1))
    return torch.stack(cosines).mean(0)
