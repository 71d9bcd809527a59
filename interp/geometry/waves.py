"""Is a function of an id modulo p one wave? Fourier power and the inverse participation ratio."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import as_rows

__all__ = ["fourier_power", "inverse_participation_ratio"]


def fourier_power(x: Float[Tensor, "*sets n p"]) -> Float[Tensor, "*sets n half"]:
    """Share of each row's power at the frequencies 1 to p // 2; the mean is left out.

    A cosine of k turns over the p columns, of whatever phase, has all of it at index k - 1.

    Raises:
        MetricError: fewer than 3 columns, or a row that is constant.
    """
    rows = as_rows(x, "fourier_power()", least=1)
    if rows.shape[-1] < 3:
        raise MetricError(
            f"fourier_power() got rows of {rows.shape[-1]} numbers; expected 3 or more, one for each id."
        )
    power = torch.fft.rfft(rows, dim=-1).abs().square()[..., 1:]
    if rows.shape[-1] % 2 == 0:
        power[..., -1] /= 2  # the others have a second half at minus their frequency
    total = power.sum(-1, keepdim=True)
    flat = total[..., 0] <= 1e-24 * rows.square().sum(-1)
    if flat.any():
        raise MetricError(
            f"fourier_power(): {int(flat.sum())} rows are constant and hold no wave; leave them out."
        )
    return power / total


def inverse_participation_ratio(x: Float[Tensor, "*sets n p"]) -> Float[Tensor, "*sets n"]:
    """Σ_k (|F_k| / ‖F‖)⁴ of each row's Fourier transform: how few frequencies it uses.

    1 = one wave; 1 / (p // 2) = all frequencies alike; noise is at about twice that. For a neuron of a
    network of modular arithmetic, take the mean over its input and output weights.

    Source:
        Doshi et al. 2023, arXiv:2310.13061 (IPR with r = 2). |F_k| is taken over cosine and sine of a
        frequency together, and the mean of a row is left out.

    >>> round(inverse_participation_ratio(torch.cos(torch.arange(7) * 2 * torch.pi / 7)[None]).item(), 6)
    1.0
    """
    return fourier_power(x).square().sum(-1)
