"""Outliers: do a few channels, or a few tokens, hold the large numbers?

Activations of trained transformers are not Gaussian. A few *channels* of the residual stream are many times
as large as the others at every token, and a few tokens are huge in a few of them ("massive activations").
Quantisation fails on them, and cosines over such rows are cosines of one or two channels. Four numbers:

    kurtosis            of each channel over the rows: are single tokens extreme there?
    channel_kurtosis    of the channels' root mean squares: are single channels extreme?
    max_median_ratio    of each row, its largest |x| over its median |x|
    outlier_channels    which channels are far larger than the typical one

Rows are tokens, columns are channels; all of it depends on the basis: a rotation of the channels changes it.

Sources: He, Noci, Paliotta, Schlag & Hofmann 2024, "Understanding and minimising outlier features in
transformer training", arXiv:2405.19279 (kurtosis of the channels' RMS, max-median ratio); Dettmers et al.
2022, "LLM.int8()", arXiv:2208.07339 (outlier features).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import as_rows

__all__ = ["channel_kurtosis", "kurtosis", "max_median_ratio", "outlier_channels"]


def kurtosis(x: Float[Tensor, "*sets n d"], *, fisher: bool = True) -> Float[Tensor, "*sets d"]:
    """Fourth moment over squared variance of each channel over the rows, E[(x - μ)⁴] / E[(x - μ)²]².

    Fisher's (*excess*): 0 = as Gaussian, -1.2 = uniform, -2 = two values alike often, n - 5 + 1/(n - 1) = one row
    of n differs, which is the most there is. NaN where a channel is constant. Moments are the sample's own (biased),
    as in scipy. For one number of all channels pooled, give them as one column: ``kurtosis(x.reshape(-1, 1))``.

    Args:
        fisher: less 3; False: Pearson's, 3 = as Gaussian.

    Raises:
        MetricError: fewer than 2 rows, or numbers that are not finite.

    >>> kurtosis(torch.tensor([[-1.0], [1.0]])).item()
    -2.0
    """
    rows = as_rows(x, "kurtosis()")
    centred = rows - rows.mean(-2, keepdim=True)
    square = centred.square()
    variance = square.mean(-2)
    # What is left of a constant after its mean is subtracted is rounding, and its shape means nothing.
    flat = variance <= 1e-28 * rows.square().mean(-2)
    found = square.square().mean(-2) / variance.square()
    return torch.where(flat, torch.nan, found) - (3 if fisher else 0)


def channel_kurtosis(x: Float[Tensor, "*sets n d"]) -> Float[Tensor, "*sets"]:
    """Kurtosis of the channels' root mean squares s over the rows, E_j[s_j⁴] / E_j[s_j²]².

    1 = all channels are of one size (as in Gaussian noise); d = one channel holds everything. Activations are
    not centred first.

    Source:
        He et al. 2024, arXiv:2405.19279 (their "kurtosis").

    Raises:
        MetricError: no rows, numbers that are not finite, or nothing but zeros.

    >>> channel_kurtosis(torch.tensor([[3.0, 0.0, 0.0, 0.0]])).item()
    4.0
    """
    power = as_rows(x, "channel_kurtosis()", least=1).square().mean(-2)
    mean = power.mean(-1)
    if bool((mean == 0).any()):
        raise MetricError("channel_kurtosis() got rows of zeros only: they have no shape.")
    return power.square().mean(-1) / mean.square()


def max_median_ratio(x: Float[Tensor, "*sets n d"]) -> Float[Tensor, "*sets n"]:
    """Each row's largest |x| over its median |x|, 1 upwards; inf where half of a row is 0.

    A Gaussian row of d = 1000 has about 5. Give columns as rows (``x.mT``) for tokens within a channel.

    Source:
        He et al. 2024, arXiv:2405.19279 (max-median ratio over neurons).

    Raises:
        MetricError: no rows, or numbers that are not finite.

    >>> max_median_ratio(torch.tensor([[1.0, -2.0, 2.0, 2.0, 50.0]])).tolist()
    [25.0]
    """
    size = as_rows(x, "max_median_ratio()", least=1).abs()
    return size.amax(-1) / size.quantile(0.5, dim=-1)


def outlier_channels(
    x: Float[Tensor, "*sets n d"], *, factor: float = 6.0
) -> Bool[Tensor, "*sets d"]:
    """Channels whose root mean square over the rows is above ``factor`` times the median channel's.

    Departure: Dettmers et al. take |x| ≥ 6 at a share of layers and tokens, which depends on the model's scale.

    Raises:
        MetricError: no rows, numbers that are not finite, or a factor that is not above 0.
    """
    if not factor > 0:
        raise MetricError(f"outlier_channels(factor={factor!r}); expected a number above 0.")
    size = as_rows(x, "outlier_channels()", least=1).square().mean(-2).sqrt()
    return size > factor * size.quantile(0.5, dim=-1, keepdim=True)
