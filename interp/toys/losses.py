"""Losses: what a toy is trained on, as functions of scored logits and their targets.

Each takes the logits at the scored positions and their targets, in one shape apart from the classes, and
returns the mean over them, in nats where it is a cross-entropy:

    cross_entropy            -log softmax(z)_c
    stablemax_cross_entropy  -log s(z_c) / Σ_j s(z_j), which does not saturate                 (Prieto et al. 2025)
    mse                      (z - y)², over classes against the one-hot target where targets are ids

The harmonic loss (Baek et al. 2025) is the cross-entropy of another readout, :class:`HarmonicReadout`: it
writes the logits -n log ‖w_i - x‖², so that softmax gives p_i ∝ ‖w_i - x‖^(-2n), and ``cross_entropy`` of
these is their loss.

    softmax(z)_i = exp(z_i) / Σ exp(z_j)      where the gap z_c - z_j grows past 104 (float32: log 2^-149),
                                              exp underflows, the loss is 0 and so is its gradient
    stablemax    = softmax(g(z)),  g(z) = sign(z) log(1 + |z|)       grows like a logarithm: no such gap
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from interp.errors import ToyError

__all__ = [
    "HarmonicReadout",
    "collapsed",
    "cross_entropy",
    "harmonic_logits",
    "log_stablemax",
    "mse",
    "stablemax_cross_entropy",
]


def cross_entropy(
    logits: Float[Tensor, "*scored classes"], targets: Int[Tensor, "*scored"]
) -> Float[Tensor, ""]:
    """Mean of -log softmax(logits) at the targets, in nats.

    Raises:
        ToyError: shapes that do not fit, or targets that are no class ids.
    """
    _fit(logits, targets, "cross_entropy()")
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def log_stablemax(logits: Float[Tensor, "*rows classes"]) -> Float[Tensor, "*rows classes"]:
    """log s(z_i) / Σ_j s(z_j), with s(z) = z + 1 where z ≥ 0 and 1 / (1 - z) below.

    Computed as log_softmax(g(z)) with g = log s = sign(z) log(1 + |z|), which neither over- nor underflows
    at any finite logit; the authors divide the values of s in float64 with 1e-30 in the denominator.

    Source:
        Prieto et al. 2025, "Grokking at the edge of numerical stability", arXiv:2501.04697 (StableMax).

    >>> log_stablemax(torch.tensor([1.0, 0.0, -1.0])).exp()
    tensor([0.5714, 0.2857, 0.1429])
    """
    above, below = torch.log1p(logits.clamp(min=0)), -torch.log1p((-logits).clamp(min=0))
    return torch.log_softmax(torch.where(logits >= 0, above, below), -1)


def stablemax_cross_entropy(
    logits: Float[Tensor, "*scored classes"], targets: Int[Tensor, "*scored"]
) -> Float[Tensor, ""]:
    """Mean of -log stablemax(logits) at the targets, in nats.

    Source:
        Prieto et al. 2025, arXiv:2501.04697 (StableMax cross-entropy).

    Raises:
        ToyError: shapes that do not fit, or targets that are no class ids.
    """
    _fit(logits, targets, "stablemax_cross_entropy()")
    return -log_stablemax(logits).gather(-1, targets[..., None]).mean()


def mse(
    outputs: Float[Tensor, "*scored classes"],
    targets: Int[Tensor, "*scored"] | Float[Tensor, "*scored classes"] | Float[Tensor, "*scored"],
) -> Float[Tensor, ""]:
    """Mean squared difference, over classes too; class ids are read as one-hot rows.

    An output of one number for each position, [*scored, 1], fits targets [*scored].

    Source:
        for classes: Doshi et al. 2023, arXiv:2310.13061 (MSE on one-hot targets).

    >>> mse(torch.tensor([[0.0, 1.0]]), torch.tensor([1])).item()
    0.0

    Raises:
        ToyError: shapes that do not fit.
    """
    if not targets.is_floating_point():
        _fit(outputs, targets, "mse()")
        targets = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
    elif outputs.shape == (*targets.shape, 1):
        outputs = outputs[..., 0]
    if outputs.shape != targets.shape:
        raise ToyError(
            f"mse() got outputs {list(outputs.shape)} and targets {list(targets.shape)}; expected one "
            "shape, or class ids of the outputs' shape without its last axis."
        )
    return (outputs - targets).square().mean()


def collapsed(
    logits: Float[Tensor, "*scored classes"], targets: Int[Tensor, "*scored"]
) -> Float[Tensor, ""]:
    """Share of examples whose softmax loss is exactly 0 in the logits' own dtype: softmax collapse.

    There the sum of the exponentials has absorbed every other class, and the example has no gradient.

    Source:
        Prieto et al. 2025, arXiv:2501.04697 (Softmax Collapse).
    """
    _fit(logits, targets, "collapsed()")
    right = torch.log_softmax(logits, -1).gather(-1, targets[..., None])
    return (right == 0).double().mean()


def harmonic_logits(
    x: Float[Tensor, "*rows d"],
    weight: Float[Tensor, "classes d"],
    *,
    exponent: float = 1.0,
    eps: float = 1e-4,
) -> Float[Tensor, "*rows classes"]:
    """-n log(‖w_i - x‖² + eps): softmax of them gives p_i ∝ (d_i² / min_j d_j²)^(-n), the harmonic max.

    The differences are taken before they are squared, so that a point close to its class loses no digits
    (‖w‖² + ‖x‖² - 2 w·x would). The minimum of the authors' quotient cancels in the softmax.

    Args:
        exponent: n, of the *squared* distance as in the authors' code; the paper's equation has
            1 / d^n, so its n is twice this one.
        eps: added to d², in its unit, so that a point on its class has a finite logit.

    Source:
        Baek et al. 2025, "Harmonic loss trains interpretable AI models", arXiv:2502.01628.
    """
    flat = x.reshape(-1, x.shape[-1])
    distance = torch.cdist(flat, weight, compute_mode="donot_use_mm_for_euclid_dist")
    logits = -exponent * torch.log(distance.square() + eps)
    return logits.reshape(*x.shape[:-1], len(weight))


class HarmonicReadout(nn.Module):
    """An unembedding whose rows are class centres: [*rows, d] → logits [*rows, classes].

    Use it in place of a last linear layer, with :func:`cross_entropy`. There is no bias.

    Args:
        d: width of what it reads.
        classes: how many.
        exponent: see :func:`harmonic_logits`.
        seed: of the initial centres, normal with variance 1 / d.

    Raises:
        ToyError: an exponent that is not above 0.
    """

    def __init__(
        self, d: int, classes: int, *, exponent: float = 1.0, eps: float = 1e-4, seed: int = 0
    ) -> None:
        super().__init__()
        if not exponent > 0:
            raise ToyError(
                f"HarmonicReadout(exponent={exponent!r}); expected above 0: near classes are likely."
            )
        self.exponent, self.eps = exponent, eps
        draw = torch.randn(classes, d, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(draw / d**0.5)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows classes"]:
        return harmonic_logits(x, self.weight, exponent=self.exponent, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} → {len(self.weight)} centres, exponent {self.exponent:g}"


def _fit(logits: Tensor, targets: Tensor, what: str) -> None:
    if targets.is_floating_point() or logits.shape[:-1] != targets.shape:
        raise ToyError(
            f"{what} got logits {list(logits.shape)} and targets {list(targets.shape)} of "
            f"{targets.dtype}; expected class ids, one for each row of logits."
        )
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[-1]:
        raise ToyError(
            f"{what} got targets from {int(targets.min())} to {int(targets.max())} for {logits.shape[-1]} "
            "classes: expected 0 to one less than there are classes (a model's d_out)."
        )
