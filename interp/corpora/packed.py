"""A batch of packed rows: which text, and which token of it, stands at each place."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from interp.token_batch import TokenBatch

__all__ = ["Cursor", "PackedBatch"]


@dataclass(frozen=True)
class Cursor:
    """How far a corpus has been packed.

    Attributes:
        document: the next document to pack from.
        offset: its first token that is not packed yet.
        chain: a hash over all documents before it, and over it too where ``offset`` > 0.
    """

    document: int = 0
    offset: int = 0
    chain: str = ""


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Rows of tokens to run, and where each token comes from.

    Attributes:
        tokens: the rows; ``segments`` is set where texts share a row without seeing each other.
        document: number of each token's document in the corpus, -1 at padding.
        position: its place among the document's tokens (as ``model.batch(document)`` has them, a
            BOS at 0); -1 at padding, and for a BOS that was put before a later piece.
        keep: tokens whose activations are wanted: real, and not special unless asked for.
        end: how far the corpus is packed with this batch.
    """

    tokens: TokenBatch
    document: Int[Tensor, "row pos"]
    position: Int[Tensor, "row pos"]
    keep: Bool[Tensor, "row pos"]
    end: Cursor

    @property
    def n_kept(self) -> int:
        """How many tokens are wanted."""
        return int(self.keep.sum())
