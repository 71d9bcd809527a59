"""AtP*: queries and keys by the exact softmax, and GradDrop against effects that cancel.

A node's direct and indirect effects may cancel in the gradient though neither is small. GradDrop
takes the estimate once for each layer, with no gradient through what that layer's attention and
MLP add to the residual stream, and averages the absolute values: estimates are unsigned.

As in the paper the sum over L layers is divided by L - 1, since a node's estimate vanishes where
its own layer is dropped. Cells on the residual stream, which the paper does not treat, vanish
nowhere and are divided by L. One forward and L backward passes.

Source: Kramár et al. 2024 (arXiv:2403.00745), section 3.1.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.attribution.part import Part
from interp.attribution.softmax import with_softmax
from interp.engine.spots import Cell
from interp.errors import RunError
from interp.runs.edits import Edit

__all__ = ["by_dropping"]

_STREAM: Final = ("resid_pre", "resid_mid", "resid_post")


def by_dropping(
    part: Part, advance: Callable[[], None]
) -> tuple[Float[Tensor, "cell prompt"], Float[Tensor, " prompt"]]:
    """The mean over dropped layers of the absolute estimate, and the baseline.

    Raises:
        RunError: a model of one layer, which has nothing left when it is dropped.
    """
    n_layers = part.anatomy.n_layers
    if n_layers < 2:
        raise RunError(
            "method='atp*' drops one layer's gradients at a time, and this model has one layer: "
            "use method='atp-qk' or 'gradient'."
        )
    dropped: list[int] = []

    def gate(layer: int) -> Edit:
        def apply(x: Tensor) -> Tensor:
            x.register_hook(lambda g: torch.zeros_like(g) if dropped == [layer] else g)
            return x

        return apply

    gates = {
        f"L{layer}.{branch}": gate(layer)
        for layer in range(n_layers)
        for branch in part.anatomy.branches
    }
    run, estimate = with_softmax(part, gates)
    summed = torch.zeros(len(part.cells), len(part.tokens), device=run.scores.device)
    for layer in range(n_layers):
        dropped[:] = [layer]
        summed = summed + estimate(run.gradients(keep=layer < n_layers - 1)).abs()
        advance()
    counts = torch.tensor([n_layers - _in_a_branch(cell) for cell in part.cells])
    return summed / counts[:, None].to(summed), run.scores.detach()


def _in_a_branch(cell: Cell) -> bool:
    """Whether dropping a layer can silence the cell: it lies inside attention or an MLP."""
    return any(s.site.layer is not None and s.site.kind.host not in _STREAM for s in cell)
