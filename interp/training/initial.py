"""Where a dictionary's weights start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.activations import JumpReLU
from interp.dictionaries.dictionary import Dictionary
from interp.training.config import TrainConfig
from interp.training.objectives import Moment, Objective
from interp.training.scales import geometric_median
from interp.training.writing import written

__all__ = ["initialise", "scale_to_fit"]

#: Thresholds of jumprelu start here, in standard deviations of a pre-activation at the start.
_THRESHOLD = 0.1


@torch.no_grad()
def initialise(
    dictionary: Dictionary,
    config: TrainConfig,
    reads: Sequence[Float[Tensor, "row d_in"]],
    writes: Sequence[Float[Tensor, "row d_out"]],
    generator: torch.Generator,
) -> None:
    """Random unit directions to read; to write, for SAEs the same ones (Gao et al. 2024, A.1).

    A transcoder writes each direction's image under the best linear map from what is read to what is
    written, so that its features have something to say from the first step; ``b_dec`` starts at the
    centre of what is written.
    """
    centres = [_centre(config, y) for y in writes]
    dictionary.b_dec.copy_(torch.cat(centres))
    for i, part in enumerate(dictionary.parts):
        enc = torch.randn(part.enc.shape, generator=generator, dtype=torch.float64)
        part.enc.copy_(enc / enc.norm(dim=-1, keepdim=True))
        if config.kind == "sae":
            part.dec.copy_(part.enc)
        else:
            images = part.enc.double() @ _linear(reads[i], torch.cat(list(writes[i:]), -1))
            images /= images.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            part.dec.copy_(images)
        if isinstance(part.activation, JumpReLU):
            part.activation.threshold.fill_(_THRESHOLD)


@torch.no_grad()
def scale_to_fit(
    dictionary: Dictionary,
    objective: Objective,
    xs: Sequence[Float[Tensor, "row d_in"]],
    y: Float[Tensor, "row width"],
    moment: Moment,
) -> None:
    """Scale the encoder so that what is written has the size that fits best: the least error that a
    single factor can reach. Random directions would otherwise add up to too much."""
    parts = dictionary.parts
    acts = [
        objective.activate(part, part.pre(dictionary.centred(x)), moment)
        for part, x in zip(parts, xs, strict=True)
    ]
    guess = written(acts, [part.dec for part in parts], torch.zeros_like(dictionary.b_dec))
    wanted = y - dictionary.b_dec
    factor = float((wanted * guess).sum() / guess.square().sum().clamp(min=1e-12))
    for part in parts:
        part.enc.mul_(max(factor, 1e-3))
        if isinstance(part.activation, JumpReLU):
            part.activation.threshold.mul_(max(factor, 1e-3))


def _centre(config: TrainConfig, y: Float[Tensor, "row d_out"]) -> Float[Tensor, " d_out"]:
    if config.init == "zero":
        return torch.zeros_like(y[0])
    return y.mean(0) if config.init == "mean" else geometric_median(y)


def _linear(
    x: Float[Tensor, "row d_in"], y: Float[Tensor, "row width"]
) -> Float[Tensor, "d_in width"]:
    """Ridge regression of what is written on what is read, in float64."""
    x, y = (x - x.mean(0)).double(), (y - y.mean(0)).double()
    gram = x.T @ x
    ridge = 1e-3 * gram.diagonal().mean()
    return torch.linalg.solve(
        gram + ridge * torch.eye(len(gram), dtype=gram.dtype).to(gram), x.T @ y
    )
