"""The plain path: one batched forward pass of the whole model for each cell.

Correct by construction and easy to read: the reference that any faster engine must equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.cells import Grid
from interp.progress import track
from interp.prompts.prompts import Prompts
from interp.runs.edits import Edit
from interp.runs.execute import Run, execute
from interp.sites import Site

__all__ = ["Scorer", "run_cells"]

#: A score for each prompt, from the logits of a run.
Scorer = Callable[[Run], Float[Tensor, " prompt"]]


def run_cells(
    model: Model,
    prompts: Prompts,
    grid: Grid,
    *,
    side: Literal["clean", "corrupted"],
    metric: Metric,
    edit_of: Callable[[Site, Int[Tensor, " prompt"] | None], Edit],
    score: Scorer,
    batch: int | Literal["auto"],
    progress: bool | None,
) -> Float[Tensor, "cell prompt"]:
    """Run every cell and score it, in the grid's order."""
    tokens = (prompts.clean if side == "clean" else prompts.corrupted).to(model.device)  # type: ignore[union-attr]
    logits: Literal["last", "all"] = "last" if metric.positions == "answer" else "all"
    rows = []
    cells = list(zip(grid.sites, grid.columns, strict=True))
    for site, column in track(cells, total=len(cells), what="patching", show=progress):
        where = _columns(site, column, prompts)
        named = site if where is None else site.at(position="cell")
        run = execute(
            model.anatomy,
            tokens,
            edit={str(named): edit_of(site, where)},
            logits=logits,
            rows_at_once=batch,
            columns=lambda _, where=where: where,  # type: ignore[misc]
        )
        rows.append(score(run))
    return torch.stack(rows)


def _columns(site: Site, column: int | None, prompts: Prompts) -> Int[Tensor, " prompt"] | None:
    """Each prompt's column for this cell; None where the cell is a whole tensor."""
    if column is not None:
        return torch.full((len(prompts),), column)
    return None if site.position is None else prompts.columns(site.position)
