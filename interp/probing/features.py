"""Activations as features: one row for each prompt or each token, at each site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import PromptError, SiteError
from interp.models.model import Model
from interp.prompts.positions import resolve_columns
from interp.prompts.prompts import Prompts
from interp.runs.plan import resolve
from interp.sites import Site

__all__ = ["EACH", "Features", "collect", "tokens_counted"]

#: ``positions=EACH``: a row for every real token.
EACH = "each"

Rows = Float[Tensor, "n d"]


@dataclass(frozen=True, eq=False)
class Features:
    """What the model holds at some sites, on the CPU in float32.

    Attributes:
        rows: for each site its name and features.
        shapes: the shape of one example's activation before it was flattened.
        types: the token id that each site is read at.
        prompt: the prompt that each row comes from.
    """

    rows: dict[str, Rows]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, Int[np.ndarray, " n"]]
    prompt: Int[np.ndarray, " n"]


def tokens_counted(
    model: Model, inputs: Any, where: Bool[Tensor, "batch pos"] | None
) -> Bool[Tensor, "batch pos"]:
    """Which tokens have a row under ``positions="each"``: the real ones, less what ``where`` drops.

    Raises:
        PromptError: ``where`` has another shape, or nothing is left.
    """
    mask = model.batch(inputs).mask.cpu()
    if where is None:
        return mask
    if where.shape != mask.shape or where.dtype != torch.bool:
        raise PromptError(
            f"where is {where.dtype} {list(where.shape)}; expected torch.bool {list(mask.shape)}, "
            "[batch, pos], True where a token counts."
        )
    if not (mask & where.cpu()).any():
        raise PromptError("where leaves no real token.")
    return mask & where.cpu()


@torch.no_grad()
def collect(
    model: Model,
    inputs: Any,
    sites: str | Site | Sequence[str | Site],
    *,
    positions: int | str,
    counted: Bool[Tensor, "batch pos"] | None = None,
    batch: int | Literal["auto"] = "auto",
) -> Features:
    """Run the model once and cut out one row for each prompt, or for each token counted.

    A site's own ``@position`` goes before ``positions``.

    Args:
        positions: a name or a number: one row for each prompt; ``"each"``: one for each token of
            ``counted``.

    Raises:
        SiteError: a site that has no position axis, no site at all, or a site at a position of
            its own under ``"each"``.
    """
    named = _named(model, [sites] if isinstance(sites, str | Site) else list(sites), positions)
    tokens = model.batch(inputs)
    run = model.run(inputs, save=list(named.values()), logits="none", batch=batch)
    ids = tokens.ids.cpu()
    rows, shapes, types = {}, {}, {}
    for name, site in named.items():
        value = run.cache[site].float().cpu()
        if counted is None:
            columns = _columns(inputs, tokens, site.position)
            types[name] = ids[torch.arange(len(ids)), columns.cpu()].numpy()
        else:
            value = value[counted]
            types[name] = ids[counted].numpy()
        shapes[name] = tuple(value.shape[1:])
        rows[name] = value.reshape(len(value), -1)
    prompt = torch.arange(len(ids)) if counted is None else counted.nonzero()[:, 0]
    return Features(rows, shapes, types, prompt.numpy())


def _named(model: Model, sites: Sequence[str | Site], positions: int | str) -> dict[str, Site]:
    """The sites to save by the name that the result gives them: one for each layer and head."""
    out: dict[str, Site] = {}
    for given in sites:
        for site in resolve(model.anatomy, [given]):
            if "pos" not in site.kind.axes:
                raise SiteError(
                    f"{str(site)!r} has the axes {', '.join(site.kind.axes)}: there is no vector at "
                    "a position to read. Probe 'z', 'resid_pre', 'mlp_post' or another."
                )
            if positions == EACH and site.position is not None:
                raise SiteError(
                    f"{str(site)!r} names a position, but positions='each' reads all: leave out one."
                )
            for one in _heads(model, site):
                at = (
                    one
                    if positions == EACH or one.position is not None
                    else one.at(position=positions)
                )
                out[str(one)] = at
    if not out:
        raise SiteError("no sites were given; expected some, such as 'L*.resid_pre'.")
    return out


def _heads(model: Model, site: Site) -> list[Site]:
    if site.head is None:
        return [site]
    size = model.n_kv_heads if "kv_head" in site.kind.axes else model.n_heads
    return [site.at(head=number) for number in site.head.expand(size, "head")]


def _columns(inputs: Any, tokens: Any, position: int | str | None) -> Int[Tensor, " batch"]:
    named = inputs.positions if isinstance(inputs, Prompts) else {}
    assert position is not None  # a site without one was given the call's
    return resolve_columns(position, tokens, named)
