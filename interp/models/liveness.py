"""Writing a site must change the logits; and what it means if it does not.

Either the tap does not reach the computation, or this model's weights make nothing of what stands
there: programs compiled to transformers leave whole heads and MLPs empty. The two are told apart
on a stand-in, the same modules with random weights: a tap that is live there is live.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from interp.runs.execute import execute
from interp.sites import POINTS
from interp.taps.anatomy import Anatomy, dissect
from interp.taps.offload import offloaded
from interp.token_batch import TokenBatch

__all__ = ["inert", "pattern_of"]

#: Weights above which no stand-in is made.
_MOST: Final = 2**26
#: Stand-ins that are made at most.
_DRAWS: Final = 8


def inert(
    anatomy: Anatomy, batch: TokenBatch, base: Tensor, points: Iterable[str], *, every_layer: bool
) -> dict[str, str]:
    """Points that cannot be shown to be live, each with what was seen."""
    failed = _failing(anatomy, batch, base, points, every_layer=every_layer)
    size = sum(p.numel() for p in anatomy.hf.parameters())
    if not failed or size > _MOST or offloaded(anatomy.hf):
        return failed
    still: Iterable[str] = failed
    for seed in range(_DRAWS):  # in one draw the few neurons of a tiny MLP can all be silent
        other = _stand_in(anatomy, seed)
        base = execute(other, batch).logits
        still = _failing(other, batch, base, still, every_layer=every_layer)
        if not still:
            break
    return {point: why for point, why in failed.items() if point in still}


def _failing(
    anatomy: Anatomy, batch: TokenBatch, base: Tensor, points: Iterable[str], *, every_layer: bool
) -> dict[str, str]:
    failed: dict[str, str] = {}
    for point in points:
        layers = [str(i) for i in range(anatomy.n_layers)] if every_layer else ["0"]
        for layer in layers if POINTS[point].layered else [""]:
            try:
                moved = execute(anatomy, batch, edit={pattern_of(point, layer): _disturb}).logits
            except Exception as error:
                failed[point] = f"writing it raised {type(error).__name__}: {error}"
                break
            if torch.equal(moved, base):
                failed[point] = f"writing {pattern_of(point, layer)} does not change the logits"
                break
        if point == "resid_mid" and point not in failed and not _read_by_mlp(anatomy, batch):
            failed[point] = "writing it does not reach the MLP: attention and MLP run in parallel"
    return failed


def _read_by_mlp(anatomy: Anatomy, batch: TokenBatch) -> bool:
    """The MLP must read what ``resid_mid`` shows: in parallel blocks it does not."""
    if "mlp_out" in anatomy.refused:
        return True
    before, after = (
        execute(anatomy, batch, save="L0.mlp_out", edit=edit, logits="none").cache["L0.mlp_out"]
        for edit in (None, {"L0.resid_mid": _disturb})
    )
    return not torch.equal(before, after)


def _stand_in(anatomy: Anatomy, seed: int) -> Anatomy:
    """The same modules with random weights: norms and biases around one, matrices of unit gain."""
    hf = copy.deepcopy(anatomy.hf)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in hf.parameters():
            noise = torch.randn_like(parameter)
            matrix = parameter.dim() > 1
            parameter.copy_(noise / parameter.shape[-1] ** 0.5 if matrix else 1 + 0.2 * noise)
    return dissect(hf)


def pattern_of(point: str, layer: str = "*") -> str:
    """A point as a site, of one layer or of all."""
    return f"L{layer}.{point}" if POINTS[point].layered else point


def _disturb(x: Tensor) -> Tensor:
    """A change that is large against the tensor and differs between its entries."""
    wave = torch.sin(torch.arange(x.numel(), device=x.device).view(x.shape) * 1.7).to(x.dtype)
    return x * (1 + 0.5 * wave) + wave
