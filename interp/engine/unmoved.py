"""Cells that put back what stands there: their runs are the run that is edited, without running them.

Of a dictionary's thousands of features most are silent in any few prompts, on both sides, so most
cells of a sweep over features replace zeros by zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.engine.spots import Cell, Values, fit
from interp.runs.edits import Edit
from interp.runs.execute import execute
from interp.runs.slices import read
from interp.sites import Site
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["unmoved"]


def unmoved(
    anatomy: Anatomy,
    tokens: TokenBatch,
    cells: Sequence[Cell],
    values: Values,
    *,
    batch: int | Literal["auto"],
    embed: Edit | None = None,
) -> Bool[Tensor, " cell"]:
    """Cells of features whose values equal, to the bit, what the edited run has there.

    Args:
        embed: an edit of the embeddings that stands in every run.
    """
    of_features = [bool(cell) and all(_feature(spot.site) for spot in cell) for cell in cells]
    found = torch.tensor(of_features, dtype=torch.bool)
    at: dict[Site, list[int]] = {}
    for number, cell in enumerate(cells):
        for site in {spot.site.whole for spot in cell} if of_features[number] else ():
            at.setdefault(site, []).append(number)
    for whole, numbers in at.items():  # one after another: features of all layers are many
        edit: dict[str, Edit] = {} if embed is None else {"embed": embed}
        run = execute(anatomy, tokens, save=[whole], edit=edit, logits="none", rows_at_once=batch)
        own = run.cache[str(whole)]
        for number in numbers:
            for spot in cells[number]:
                if spot.site.whole == whole and found[number]:
                    have = read(own, spot.site, spot.columns)
                    put = fit(values(spot).to(have.device), have.shape, spot)
                    found[number] = torch.equal(have, put.to(have.dtype))
    return found


def _feature(site: Site) -> bool:
    return site.unit is not None and site.kind.units == "F"
