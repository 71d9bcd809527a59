"""Going on with an interrupted sweep: is it the same one?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from interp.errors import ResultError
from interp.results import Axis, Provenance

__all__ = ["same_sweep"]


def same_sweep(
    now: Provenance,
    then: Provenance,
    axes: tuple[Axis, ...],
    old_axes: tuple[Axis, ...],
    baselines: Mapping[Any, tuple[Tensor, Tensor | None]],
) -> None:
    """Check that an interrupted sweep is the one that is to go on.

    Args:
        baselines: by side, this call's scores and the old result's.

    Raises:
        ResultError: it is another sweep.
    """
    for word, ours, theirs in (
        *((word, now.call.get(word), then.call.get(word)) for word in {**now.call, **then.call}),
        ("weights", now.weights_hash, then.weights_hash),
        ("prompts", now.prompts_hash, then.prompts_hash),
        ("seed", now.seed, then.seed),
        ("axes", axes, old_axes),
    ):
        if ours != theirs:
            raise ResultError(
                f"resume= is another sweep: its {word} is {theirs!r}, this one's {ours!r}. "
                "Give the result of the same call, or leave resume out."
            )
    for side, (scores, old) in baselines.items():
        if old is None or not torch.allclose(old, scores, rtol=1e-3, atol=1e-4):
            raise ResultError(
                f"resume= is another sweep: its {side} baseline is not this one's, so the metric "
                f"{now.call['metric']!r} or the model computes something else now (in half precision, another engine "
                "too): give the engine it was run with, or leave resume out."
            )
