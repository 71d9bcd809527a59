"""Whether a model's blocks can be replayed: tried on a few tokens, once until a weight is written.

A proof holds for the weights it was made with: with a weight of zeros or NaN (inside
``model.edited``) two ways agree that differ with others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from interp.engine.base import Base, CannotReplay, run_base
from interp.engine.behind import prove, to_prove
from interp.engine.kernels import replay_kernels
from interp.engine.replay import run_block
from interp.engine.spots import Spot
from interp.engine.where import Picked, Tail, Where
from interp.runs.execute import forward
from interp.taps.anatomy import Anatomy
from interp.taps.offload import offloaded
from interp.token_batch import TokenBatch

__all__ = ["why_no_paths", "why_not"]

_Versions = tuple[tuple[int, int], ...]

#: Largest difference between a replayed residual stream and the run's own, as a share of its size.
_TOLERANCE: Final = {torch.float64: 1e-6, torch.float32: 1e-4}

_found: WeakKeyDictionary[nn.Module, tuple[_Versions, str | None]] = WeakKeyDictionary()
_adds_up: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def why_no_paths(anatomy: Anatomy) -> str | None:
    """None if the residual stream is the sum of its branches, as direct paths take it to be."""
    writes = {write[0] for splice in anatomy.splices for write in splice.writes}
    if any(point.startswith("resid") for point in writes):
        return "a dictionary stands in the residual stream itself, between what writes and reads it"
    _reason(replace(anatomy, splices=()))  # what the dictionaries write is added like the rest
    if _adds_up.get(anatomy.hf):
        return None
    return "its residual stream was not shown to be the sum of what attention and MLPs add"


def why_not(anatomy: Anatomy) -> str | None:
    """None if each block gives its own output again from part of its input; else the reason."""
    if anatomy.splices:
        return "dictionaries are spliced into this run"
    if anatomy.hf.training:
        return "the model is in training mode (dropout draws anew in each call); call hf.eval()"
    hooked = next((name for name, m in anatomy.decoder.named_modules() if _foreign(m)), None)
    if hooked is not None:
        return f"{hooked!r} has a hook of its own, which would see part of the positions only"
    if offloaded(anatomy.hf):
        return "some of its weights are offloaded by its device_map"
    return _reason(anatomy)


def _reason(anatomy: Anatomy) -> str | None:
    """What :func:`_probe` says of the weights as they are."""
    now = tuple((id(p), p._version) for p in anatomy.hf.parameters())
    known = _found.get(anatomy.hf)
    if known is None or known[0] != now:
        known = _found[anatomy.hf] = now, _probe(anatomy)
    return known[1]


def _foreign(module: nn.Module) -> bool:
    """Whether somebody else's hook stands on a module (transformers' own only look)."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(not (hook.__module__ or "").startswith("transformers.") for hook in hooks)


@torch.no_grad()
def _probe(anatomy: Anatomy) -> str | None:
    device = anatomy.hf.get_input_embeddings().weight.device
    vocabulary = anatomy.hf.get_input_embeddings().num_embeddings
    width = min(6, anatomy.n_ctx or 6)
    ids = torch.arange(2 * width, device=device).view(2, width) % vocabulary
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, : width // 3] = False
    try:
        for batch in (TokenBatch.of(ids), TokenBatch(ids, mask)):
            plain = forward(anatomy, batch)[batch.mask]
            base = run_base(anatomy, batch, logits=True, see=to_prove(anatomy))
            worst = [_relative(base.logits[batch.mask], plain)]
            with replay_kernels(anatomy):
                worst += [_difference(base, layer) for layer in range(anatomy.n_layers)]
            tolerance = _TOLERANCE.get(plain.dtype, 0.05)
            if not all(one <= tolerance for one in worst):  # NaN is no proof
                return f"a replayed block differs from the run's own by {max(worst):.1g}"
            if not batch.padded:
                _adds_up[anatomy.hf] = _sums(base) <= tolerance
                with replay_kernels(anatomy):
                    prove(base, tolerance)
    except CannotReplay as reason:
        return str(reason)
    except Exception as error:
        if anatomy.known:
            raise
        return f"replaying an unknown family's block raised {type(error).__name__}: {error}"
    return None


def _difference(base: Base, layer: int) -> float:
    """Between a block's output and its replay, on a tail and on one column."""
    x, out = base.resid[layer], base.resid[layer + 1]
    places: tuple[Where, ...] = (
        Tail(base.width // 2),
        Picked(torch.full((1, len(base)), base.width - 1)),
    )
    return max(
        _relative(run_block(base, layer, where.take(x, 1), where, [], _nothing), where.take(out, 1))
        for where in places
    )


def _sums(base: Base) -> float:
    """Between the stream behind each block and the sum of what stood before it and was added."""
    layers = range(base.anatomy.n_layers)
    branches = base.anatomy.branches
    if any((branch, n) not in base.seen for branch in branches for n in layers):
        return float("inf")
    return max(
        _relative(base.resid[n] + sum(base.seen[branch, n] for branch in branches),
                  base.resid[n + 1])
        for n in layers
    )  # fmt: skip


def _relative(given: Tensor, right: Tensor) -> float:
    """Where the model itself gives numbers (padding in float64 has none in some families)."""
    there = right.isfinite()
    if not bool(there.any()):
        return float("inf")
    size = right[there].abs().max().clamp(min=1e-6)
    return float((given - right)[there].abs().max() / size)


def _nothing(spot: Spot) -> Tensor:
    raise AssertionError(f"no edit was asked for, but {spot.site} was")
