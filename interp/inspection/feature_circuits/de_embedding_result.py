"""The tokens that features read: as a table, and as a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["DeEmbedding"]


@dataclass(frozen=True, eq=False, repr=False)
class DeEmbedding(Stored):
    """Tokens at both ends of what features read. Made by :func:`de_embed` and :func:`de_embed_path`.

    Attributes:
        names: of the features, or of the path.
        top_ids, top: tokens with the largest numbers, largest first.
        bottom_ids, bottom: with the smallest, smallest first.
        kurtosis: excess kurtosis over the vocabulary: 0 = as Gaussian, large = few tokens stand out.
        words: every token of the vocabulary as text.
        note: what was multiplied with what.
        provenance: model, versions and the call.
    """

    names: tuple[str, ...]
    top_ids: Int[Tensor, "feature k"]
    top: Float[Tensor, "feature k"]
    bottom_ids: Int[Tensor, "feature k"]
    bottom: Float[Tensor, "feature k"]
    kurtosis: Float[Tensor, " feature"]
    words: tuple[str, ...]
    note: str
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        shown = "; ".join(
            f"{name}: {', '.join(repr(self.words[i]) for i in row[:3])}"
            for name, row in zip(self.names[:3], self.top_ids.tolist(), strict=False)
        )
        return f"DeEmbedding({len(self)} rows; {shown}{'; ...' if len(self) > 3 else ''})"

    def to_frame(self) -> DataFrame:
        """A row for each feature and rank: ``name``, ``rank``, ``top``, ``top_value``, ``bottom``, ``bottom_value``."""
        import pandas as pd

        count, k = self.top_ids.shape
        columns: dict[str, Any] = {
            "name": [name for name in self.names for _ in range(k)], "rank": list(range(k)) * count,
        }  # fmt: skip
        for end, ids, values in (("top", self.top_ids, self.top), ("bottom", self.bottom_ids, self.bottom)):  # fmt: skip
            columns[end] = [self.words[i] for i in ids.flatten().tolist()]
            columns[f"{end}_value"] = values.flatten().tolist()
        return pd.DataFrame(columns)

    def plot(self, *, rows: int = 12, k: int = 6, title: str | None = None) -> Figure:
        """A table of the ``k`` strongest tokens of the first ``rows`` features, coloured by their number."""
        from interp.figures.token_table import token_table

        rows, k = min(rows, len(self)), min(k, self.top_ids.shape[1])
        words = [[self.words[i] for i in row[:k]] for row in self.top_ids[:rows].tolist()]
        return token_table(
            words, torch.as_tensor(self.top[:rows, :k]), rows=self.names[:rows],
            columns=[str(i + 1) for i in range(k)], title=title or "tokens that features read (de-embedding)",
            unit="embedding × encoder",
        )  # fmt: skip
