"""Where each prompt is read: a column for each position asked for, and what to call it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import PromptError, warn
from interp.prompts.prompts import Prompts
from interp.results import Axis

__all__ = ["Positions", "places"]

#: One position by number or name, "each" column, or several.
Positions = int | str | Sequence[int | str]


def places(
    prompts: Prompts, positions: Positions
) -> tuple[Int[Tensor, "prompt pos"], Bool[Tensor, "prompt pos"], tuple[Axis, ...]]:
    """Each prompt's columns, whether a real token stands there, and the axis they make.

    One named or numbered position makes no axis.

    Raises:
        PromptError: no such position, or an empty list.
    """
    mask = prompts.clean.mask.cpu()
    if positions == "each":
        if not bool(mask.all()):
            warn(
                "these prompts differ in length, so a column is another word in each of them; where a "
                "prompt has padding it does not count. Use named positions, such as "
                "positions=['subject', 'END']."
            )
        columns = torch.arange(mask.shape[1]).expand(mask.shape)
        return columns, mask, (Axis("position", _labels(prompts, mask.shape[1])),)
    if isinstance(positions, int | str):
        return *_named(prompts, [positions]), ()
    listed = list(positions) if isinstance(positions, Sequence) else []
    if not listed:
        raise PromptError(f"positions={positions!r}; expected names or numbers, or 'each'.")
    return *_named(prompts, listed), (Axis("position", tuple(str(p) for p in listed)),)


def _named(
    prompts: Prompts, listed: Sequence[int | str]
) -> tuple[Int[Tensor, "prompt pos"], Bool[Tensor, "prompt pos"]]:
    columns = torch.stack([prompts.columns(one).cpu() for one in listed], dim=-1)
    return columns, torch.ones_like(columns, dtype=torch.bool)


def _labels(prompts: Prompts, width: int) -> tuple[str, ...]:
    """Each column's number, with its token where all prompts agree on it."""
    pieces = prompts.str_tokens
    if pieces is None:
        return tuple(str(i) for i in range(width))
    seen = [{row[i] for row in pieces} for i in range(width)]
    return tuple(f"{i} {t.copy().pop().strip() if len(t) == 1 else ''}".strip()
                 for i, t in enumerate(seen))  # fmt: skip
