"""Some rows of activations: one for each token, with the token they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import SiteError, nearest

__all__ = ["Rows"]


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """Activations of some tokens, row for row.

    Attributes:
        tensors: for each site its activations, [row, ...].
        tokens: the token ids that they were read at.
        document: number of each token's document in the corpus.
        position: its place among the document's tokens (a BOS stands at 0).
    """

    tensors: Mapping[str, Float[Tensor, "row ..."]]
    tokens: Int[Tensor, " row"]
    document: Int[Tensor, " row"]
    position: Int[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, site: str) -> Float[Tensor, "row ..."]:
        """The activations of one site.

        Raises:
            SiteError: these rows do not have it.
        """
        if site not in self.tensors:
            raise SiteError(f"these rows have no {site!r}; nearest: {nearest(site, self.tensors)}.")
        return self.tensors[site]

    def __repr__(self) -> str:
        return f"Rows({len(self)} rows of {', '.join(self.tensors)})"

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def take(self, index: Int[Tensor, " rows"] | slice) -> Rows:
        """Some of the rows."""
        return Rows(
            {site: x[index] for site, x in self.tensors.items()},
            self.tokens[index],
            self.document[index],
            self.position[index],
        )

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Rows:
        """On another device; activations in another dtype."""
        return Rows(
            {
                s: x.to(device=device, dtype=dtype, non_blocking=True)
                for s, x in self.tensors.items()
            },
            *(x.to(device) for x in (self.tokens, self.document, self.position)),
        )

    @classmethod
    def cat(cls, parts: Sequence[Rows]) -> Rows:
        """Rows one after another; all parts have the same sites."""
        return cls(
            {site: torch.cat([part.tensors[site] for part in parts]) for site in parts[0].tensors},
            *(
                torch.cat([getattr(part, name) for part in parts])
                for name in ("tokens", "document", "position")
            ),
        )
