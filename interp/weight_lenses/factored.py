"""A product of two thin matrices that is never written out.

A head's full circuit is a matrix over the vocabulary, [vocab, vocab], but its rank is at most
``d_head``: it passes through the head. Everything one asks of it (an entry, a row, the largest
entries, its norm, trace, eigenvalues, singular values) comes from the two factors:

- eigenvalues of ``L @ R`` other than 0 are those of the small ``R @ L``;
- singular values are those of ``R_L @ R_Rᵀ``, where ``L = Q_L R_L`` and ``Rᵀ = Q_R R_R`` (QR);
- the largest entries are found in blocks of rows, in bounded memory.

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (eigenvalues of
W_E W_OV W_U as a sign of copying); TransformerLens's ``FactoredMatrix`` is the same idea.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from interp.errors import BudgetError, MetricError
from interp.progress import Bar

__all__ = ["Factored", "copying_score"]

#: Entries of a product that may lie in memory at once.
BLOCK = 1 << 24

Indices = Sequence[int] | Int[Tensor, " some"]


@dataclass(frozen=True, eq=False, repr=False)
class Factored:
    """The matrix ``left @ right``, [m, n], kept as its factors.

    >>> matrix = Factored(torch.randn(50257, 64), torch.randn(64, 50257))
    >>> matrix.shape, matrix.rank
    ((50257, 50257), 64)

    Attributes:
        left, right: the factors; ``r`` bounds the rank.
    """

    left: Float[Tensor, "m r"]
    right: Float[Tensor, "r n"]

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            raise MetricError(
                f"Factored got factors of shapes {list(self.left.shape)} and "
                f"{list(self.right.shape)}; expected [m, r] and [r, n]."
            )

    def __repr__(self) -> str:
        return f"Factored({self.shape[0]} × {self.shape[1]}, rank ≤ {self.rank})"

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """The inner dimension: the rank is at most this."""
        return self.left.shape[1]

    @property
    def T(self) -> Factored:  # noqa: N802
        return Factored(self.right.T, self.left.T)

    def rows(self, index: Indices) -> Float[Tensor, "some n"]:
        """Some rows, written out."""
        return self.left[torch.as_tensor(index, device=self.left.device)] @ self.right

    def columns(self, index: Indices) -> Float[Tensor, "m some"]:
        """Some columns, written out."""
        return self.left @ self.right[:, torch.as_tensor(index, device=self.left.device)]

    def entries(self, rows: Indices, columns: Indices) -> Float[Tensor, "some other"]:
        """The block of some rows and some columns."""
        device = self.left.device
        rows, columns = torch.as_tensor(rows).to(device), torch.as_tensor(columns).to(device)
        return self.left[rows] @ self.right[:, columns]

    def dense(self) -> Float[Tensor, "m n"]:
        """The whole matrix.

        Raises:
            BudgetError: it has more than 2²⁴ entries.
        """
        m, n = self.shape
        if m * n > BLOCK:
            raise BudgetError(
                f"{self!r} written out has {m * n:,} entries ({m * n * 4 / 2**30:.1f} GiB), more "
                f"than {BLOCK:,}: ask for rows, columns, entries or the top entries instead."
            )
        return self.left @ self.right

    def diagonal(self) -> Float[Tensor, " m"]:
        """Entries ``[i, i]``: what each row's own column gets."""
        self._square("diagonal")
        return torch.einsum("mr,rm->m", self.left, self.right)

    def trace(self) -> float:
        """Sum of the diagonal."""
        self._square("trace")
        return float(torch.einsum("mr,rm->", self.left.double(), self.right.double()))

    def frobenius(self) -> float:
        """Square root of the sum of all squared entries."""
        rows = (self.left.T @ self.left).double()
        columns = (self.right @ self.right.T).double()
        return float((rows * columns.T).sum().clamp(min=0).sqrt())

    def eigenvalues(self) -> Complex[Tensor, " r"]:
        """The eigenvalues that can differ from 0, largest magnitude first."""
        self._square("eigenvalues")
        values = torch.linalg.eigvals((self.right @ self.left).double())
        return values[values.abs().argsort(descending=True)]

    def copying_score(self) -> float:
        """ΣRe λ / Σ|λ| of the eigenvalues, -1 to 1 (see :func:`copying_score`)."""
        return float(copying_score(self.eigenvalues()))

    def svd(self) -> tuple[Float[Tensor, "m r"], Float[Tensor, " r"], Float[Tensor, "n r"]]:
        """``U, S, V`` with ``left @ right = U @ diag(S) @ V.T``, exactly, S descending.

        Each pair of vectors has the sign under which the largest entry of V is positive.
        """
        q_left, r_left = torch.linalg.qr(self.left)
        q_right, r_right = torch.linalg.qr(self.right.T)
        u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
        u, v = q_left @ u, q_right @ vh.T
        sign = v.gather(0, v.abs().argmax(0, keepdim=True)).sign()
        return u * sign, s, v * sign

    def top(
        self, n: int = 20, *, largest: bool = True
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, "n 2"]]:
        """The ``n`` largest (or smallest) entries and where they stand, [row, column].

        All m·n entries are computed, in blocks of rows: about m·n·r multiplications.
        """
        m, width = self.shape
        n = min(n, m * width)
        step, sign = max(1, BLOCK // width), 1 if largest else -1
        best = self.left.new_empty(0)
        where = torch.empty(0, dtype=torch.long, device=self.left.device)
        with Bar(total=-(-m // step), what="entries") as bar:
            for start in range(0, m, step):
                block = (self.left[start : start + step] @ self.right).flatten() * sign
                value, at = block.topk(min(n, len(block)))
                best, where = torch.cat([best, value]), torch.cat([where, at + start * width])
                best, order = best.topk(min(n, len(best)))
                where = where[order]
                bar.advance()
        return best * sign, torch.stack([where // width, where % width], dim=-1)

    def _square(self, what: str) -> None:
        if self.shape[0] != self.shape[1]:
            raise MetricError(f"{what} of {self!r}: expected a square matrix.")


def copying_score(eigenvalues: Complex[Tensor, "*heads r"]) -> Float[Tensor, "*heads"]:
    """ΣRe λ / Σ|λ|: 1 if every eigenvalue is positive, -1 if every one is negative.

    Of a full OV circuit, 1 means that each token raises its own logit, whatever mix of tokens is
    attended to. Many heads have it that copy nothing in practice: it is a property of weights, and
    alone identifies no kind of head.

    Source: Elhage et al. 2021, "Summarizing OV/QK Matrices".

    >>> copying_score(torch.tensor([3.0, -1.0]) + 0j)
    tensor(0.5000)
    """
    return eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1).clamp(min=1e-12)
