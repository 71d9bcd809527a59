"""The plain path: one batched forward pass of the whole model for each cell.

Correct by construction and easy to read: the reference that the exact engine must equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from interp.engine.readout import Readout
from interp.engine.spots import Cell, Values
from interp.runs.edits import Edit, Replace
from interp.runs.execute import execute
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["run_plainly"]


def run_plainly(
    anatomy: Anatomy,
    tokens: TokenBatch,
    cells: Sequence[Cell],
    values: Values,
    readout: Readout,
    *,
    batch: int | Literal["auto"],
    embed: Edit | None = None,
) -> Iterator[tuple[list[int], Float[Tensor, "cell prompt"]]]:
    """Yield the number of each cell with its scores, one cell at a time.

    Args:
        embed: an edit of the embeddings that stands in every run.
    """
    logits: Literal["last", "all"] = "all" if readout.answer is None else "last"
    for number, cell in enumerate(cells):
        edits: dict[str, Edit] = {} if embed is None else {"embed": embed}
        columns: dict[int | str, Tensor] = {}
        for i, spot in enumerate(cell):
            site = spot.site
            if spot.columns is not None:
                site = site.at(position=f"spot{i}")
                columns[f"spot{i}"] = spot.columns
            edits[str(site)] = Replace(values(spot))
        run = execute(
            anatomy, tokens, edit=edits, logits=logits, rows_at_once=batch,
            columns=columns.__getitem__,
        )  # fmt: skip
        out = run.logits if readout.answer is None else run.logits[:, 0]
        if readout.vocab is not None:
            out = out[..., readout.vocab]
        yield [number], readout.score(out)[None]
