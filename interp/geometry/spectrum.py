"""How many dimensions do representations use, and which? Spectra of a matrix of rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import as_rows

__all__ = ["PCA", "anisotropy", "effective_rank", "entropy_rank", "participation_ratio", "pca"]


@dataclass(frozen=True, eq=False, repr=False)
class PCA:
    """Principal components of some rows.

    Attributes:
        components: orthonormal directions, most variance first. Each is signed so that its
            entry of largest magnitude is positive.
        variance: of the rows along each, in the square of the activation's unit (n - 1 below).
        share: of the total variance; all components together have 1.
        mean: the rows' mean.
        projections: the centred rows along each component.
    """

    components: Float[Tensor, "k d"]
    variance: Float[Tensor, " k"]
    share: Float[Tensor, " k"]
    mean: Float[Tensor, " d"]
    projections: Float[Tensor, "n k"]

    def __repr__(self) -> str:
        shares = ", ".join(f"{value:.1%}" for value in self.share[:3].tolist())
        return f"PCA({len(self.projections)} rows, {len(self.share)} components: {shares}...)"

    def project(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows k"]:
        """Other rows along the same components.

        Raises:
            MetricError: they have another width.
        """
        rows = torch.as_tensor(x, device=self.mean.device)
        if rows.shape[-1:] != self.mean.shape:
            raise MetricError(
                f"project() got rows of shape {list(rows.shape)}; expected [*, {len(self.mean)}]."
            )
        return (rows.double() - self.mean) @ self.components.T

    def names(self) -> tuple[str, ...]:
        """A name for each component, for the axes of a figure.

        >>> seen = pca(torch.eye(4), 2)
        >>> seen.names()
        ('component 1 (33% of the variance)', 'component 2 (33% of the variance)')

        ``figures.points(*seen.projections.T.tolist(), x_name=..., y_name=...)`` draws the rows.
        """
        shares = self.share.tolist()
        return tuple(f"component {i + 1} ({x:.0%} of the variance)" for i, x in enumerate(shares))


def pca(x: Float[Tensor, "n d"], k: int | None = None) -> PCA:
    """Principal components by the exact singular value decomposition of the centred rows.

    The sign of a component means nothing; it is fixed so that equal rows give equal figures.

    Args:
        k: how many components; None: all, min(n - 1, d).

    Raises:
        MetricError: fewer than 2 rows, numbers that are not finite, no variance, or ``k`` out of
            range.
    """
    rows = as_rows(x, "pca()")
    if rows.ndim != 2:
        raise MetricError(f"pca() got an array of shape {list(rows.shape)}; expected [n, d].")
    most = min(len(rows) - 1, rows.shape[1])
    if k is not None and not (hasattr(k, "__index__") and 1 <= k <= most):
        raise MetricError(
            f"pca(k={k!r}) of {list(rows.shape)}; expected 1 to {most}, min(n - 1, d) or None for all."
        )
    mean = rows.mean(0)
    u, s, v = torch.linalg.svd(rows - mean, full_matrices=False)
    if float(s[0]) <= 1e-12 * float(rows.abs().max()):
        raise MetricError("pca() got rows that are all the same: there is no variance to explain.")
    biggest = v.gather(1, v.abs().argmax(1, keepdim=True))
    sign = torch.where(biggest < 0, -1.0, 1.0)
    keep = slice(0, k or most)
    variance = s.square() / (len(rows) - 1)
    return PCA(
        components=(v * sign)[keep],
        variance=variance[keep],
        share=(variance / variance.sum())[keep],
        mean=mean,
        projections=(u * s * sign.T)[:, keep],
    )


def effective_rank(x: Float[Tensor, "*sets n d"]) -> Float[Tensor, "*sets"]:
    """The exponential of the entropy of the singular values, as shares of their sum.

    1 = all rows lie on one line through zero; min(n, d) = all singular values are equal. Rows
    are not centred, as in RankMe: a common offset counts as a dimension, and a large one lowers
    the number.

    Source:
        Roy & Vetterli 2007, "The effective rank", equation 4; used on representations as RankMe,
        Garrido et al. 2023, arXiv:2210.02885 (which adds 1e-7 to each share; we add nothing).

    >>> effective_rank(torch.eye(4)).item()
    4.0
    """
    s = torch.linalg.svdvals(as_rows(x, "effective_rank()"))
    total = s.sum(-1, keepdim=True)
    if (total == 0).any():
        raise MetricError("effective_rank() got rows that are all zero; expected some numbers.")
    return entropy_rank(s)


def entropy_rank(values: Float[Tensor, "*sets r"]) -> Float[Tensor, "*sets"]:
    """The effective rank of a matrix by its singular values (Roy & Vetterli 2007, equation 4).

    >>> entropy_rank(torch.ones(4))
    tensor(4.)
    """
    share = values / values.sum(-1, keepdim=True).clamp(min=1e-30)
    return torch.special.entr(share).sum(-1).exp()


def participation_ratio(x: Float[Tensor, "*sets n d"]) -> Float[Tensor, "*sets"]:
    """(Σλ)² / Σλ² over the eigenvalues λ of the rows' covariance.

    1 = the rows vary along one line; d = equally in all directions. Large variances count for
    more than in :func:`effective_rank`, and the mean does not count.

    Source:
        Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement".
    """
    rows = as_rows(x, "participation_ratio()")
    s = torch.linalg.svdvals(rows - rows.mean(-2, keepdim=True)).square()
    if (s.sum(-1) == 0).any():
        raise MetricError("participation_ratio() got rows that are all the same.")
    return s.sum(-1).square() / s.square().sum(-1)


def anisotropy(x: Float[Tensor, "*sets n d"]) -> Float[Tensor, "*sets"]:
    """Mean cosine between two different rows.

    0 = directions cancel, as in an even cloud around zero; 1 = all rows point one way. Never
    below -1/(n-1).

    Source:
        Ethayarajh 2019, arXiv:1909.00512 (there over random pairs; here over all).
    """
    rows = as_rows(x, "anisotropy()")
    size = rows.norm(dim=-1, keepdim=True)
    if (size == 0).any():
        raise MetricError(
            f"anisotropy(): {int((size == 0).sum())} rows are zero and have no direction; leave "
            "them out."
        )
    n = rows.shape[-2]
    return ((rows / size).sum(-2).square().sum(-1) - n) / (n * (n - 1))
