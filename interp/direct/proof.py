"""Is the residual stream the sum of its terms? Asked of every run, answered by name if not.

A few families do more to the stream than add to it (OPT-350m normalises it behind each branch).
There, a part of the stream does not reach the end as it was written, and an attribution to it
would be a fiction.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, SiteError, warn
from interp.runs.execute import execute
from interp.taps.anatomy import Anatomy
from interp.token_batch import TokenBatch

__all__ = ["check", "tolerance"]

#: Largest deviation of a sum from what it should be, as a share of its largest part (at least 1).
_ALLOWED: Final = {torch.float64: 1e-9, torch.float32: 1e-4}


def tolerance(dtype: torch.dtype) -> float:
    """What rounding may add up to in a model of this dtype, relative to the largest part."""
    return _ALLOWED.get(dtype, 5e-2)


def check(
    anatomy: Anatomy,
    batch: TokenBatch,
    deviation: Float[Tensor, "..."],
    largest: float,
    what: str,
) -> float:
    """The largest deviation, if rounding can explain it.

    Raises:
        ModelError: it cannot, in full precision; the message names what does not add up. In half
            precision, where the stream itself is rounded at every addition, this is a warning.
    """
    error = float(deviation.abs().max())
    dtype = next(anatomy.hf.parameters()).dtype
    allowed = tolerance(dtype) * max(1.0, largest)
    if error <= allowed:
        return error
    found = (
        f"the parts of {what} sum to something else, by up to {error:.2g} (rounding in "
        f"{str(dtype).removeprefix('torch.')} explains {allowed:.2g}): {_culprit(anatomy, batch)}"
    )
    if dtype in _ALLOWED:
        raise ModelError(found)
    warn(found + " Load the model in float32 to be sure.")
    return error


def _culprit(anatomy: Anatomy, batch: TokenBatch) -> str:
    """What does not add up, found by asking block by block."""
    allowed = max(1e-3, tolerance(next(anatomy.hf.parameters()).dtype))
    try:
        off, name = next((gap for gap in _gaps(anatomy, batch) if gap[0] > allowed), (0.0, ""))
    except SiteError as error:
        return str(error)
    if not name:
        return (
            f"the stream of {anatomy.name} is the sum of its branches, but what lies inside a branch "
            "or behind the last block (norm, unembedding) is not understood."
        )
    return (
        f"the residual stream of this {anatomy.name} model is not the sum of its branches: {name} "
        f"differs from what was before it and what is added by {off:.2g}, relative to its size. "
        "Such blocks change the stream itself (OPT-350m normalises it behind each branch), so no "
        "part of it reaches the end as it was written. Patch instead: interp.patch."
    )


def _gaps(anatomy: Anatomy, batch: TokenBatch) -> list[tuple[float, str]]:
    """For the embedding and for each block, how far the stream is from the sum, and its name."""
    last = anatomy.n_layers - 1
    branches = anatomy.branches
    outside = ["embed"] + ["pos_embed"] * ("pos_embed" not in anatomy.refused)
    save = [*outside, *(f"L*.{point}" for point in ("resid_pre", *branches)), f"L{last}.resid_post"]
    cache = execute(anatomy, batch, save=save, logits="none").cache
    stream = [cache[f"L{n}.resid_pre"] for n in range(last + 1)] + [cache[f"L{last}.resid_post"]]
    sums = [sum((cache[name] for name in outside), torch.zeros_like(stream[0]))]
    for n in range(last + 1):
        sums.append(sum((cache[f"L{n}.{branch}"] for branch in branches), stream[n]))
    names = [f"L{n}.resid_pre" for n in range(last + 1)] + [f"L{last}.resid_post"]
    size = [float(x[batch.mask].abs().max().clamp(min=1e-6)) for x in stream]
    far = [float((a - b)[batch.mask].abs().max()) for a, b in zip(stream, sums, strict=True)]
    return [(f / s, name) for f, s, name in zip(far, size, names, strict=True)]
