"""Causal tracing, in the form of Meng et al. 2022, figure 1: tokens downwards, layers across."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from interp.figures.multiples import multiples
from interp.figures.paint import largest
from interp.figures.style import DIVERGING

__all__ = ["tracing"]


def tracing(
    effects: Float[Tensor, "panel layer position"],
    *,
    panels: Sequence[str],
    layers: Sequence[str],
    positions: Sequence[str],
    title: str,
    unit: str,
    limit: float | None = None,
) -> Figure:
    """Draw a panel for each kind of restoration under one scale, centred at zero.

    Args:
        effects: what each restoration brings back, in ``unit``; NaN is drawn grey.
        panels: a heading for each panel.
        limit: the value of the strongest colour; None: the largest magnitude of all panels.
    """
    top = largest(effects.detach().float().cpu().numpy(), limit)
    return multiples(
        effects.transpose(1, 2), panels=panels, rows=positions, columns=layers, title=title,
        unit=unit, row_name="", column_name="restored layer", low=-top,
        high=top, colours=DIVERGING, upward=False, missing="no such token, or not run",
    )  # fmt: skip
