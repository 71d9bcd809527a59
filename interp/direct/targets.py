"""What every part is read for: answers less foils, tokens, or a direction of the stream.

A target is linear in the stream, so it is a direction for each prompt and a number that belongs to
no part. Several targets lie along an axis ``k``: tokens side by side, or the draws of a control.
``directions`` gives what each part is multiplied with, and the number that belongs to no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.direct.reader import before_softcap, token_directions
from interp.taps.anatomy import Anatomy

__all__ = ["Along", "Logits", "Target"]

Ids = Int[Tensor, "k prompt _"]  # sets, padded with -1


@dataclass(frozen=True, eq=False)
class Logits:
    """The mean logit of a set of tokens, less that of another set where there is one."""

    answers: Ids
    foils: Ids | None = None

    def __len__(self) -> int:
        return len(self.answers)

    def rows(self, rows: slice) -> Logits:
        foils = None if self.foils is None else self.foils[:, rows]
        return Logits(self.answers[:, rows], foils)

    def directions(self, anatomy: Anatomy) -> tuple[Tensor, Tensor]:
        ids, weights = self._weights()
        device = anatomy.hf.get_output_embeddings().weight.device
        each, constant = token_directions(anatomy, ids.to(device))
        weights = weights.to(each)
        return weights @ each, weights @ constant

    def own(
        self,
        anatomy: Anatomy,
        resid: Float[Tensor, "row pos d_model"],
        logits: Float[Tensor, "row pos d_vocab"],
    ) -> Float[Tensor, "k row pos"]:
        """The same measure of the model's own logits, before a final soft-cap."""
        ids, weights = self._weights()
        ids = ids.to(logits.device)
        own = before_softcap(anatomy, resid, logits[..., ids], ids)
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        return torch.einsum("krt,rpt->krp", weights.to(own), own)

    def _weights(self) -> tuple[Int[Tensor, " token"], Float[Tensor, "k row token"]]:
        """The tokens that count at all, and by how much each counts for each prompt."""
        sides = [self.answers] if self.foils is None else [self.answers, self.foils]
        ids = torch.cat([side.flatten() for side in sides]).unique()
        ids = ids[ids >= 0]
        weights = torch.zeros(*self.answers.shape[:2], len(ids), dtype=torch.float64)
        for side, sign in zip(sides, (1.0, -1.0), strict=False):
            real = (side >= 0).double()
            place = torch.searchsorted(ids, side.clamp(min=0)).clamp(max=len(ids) - 1)
            weights.scatter_add_(-1, place, sign * real / real.sum(-1, keepdim=True))
        return ids, weights


@dataclass(frozen=True, eq=False)
class Along:
    """The product with a direction of the stream, as the stream stands: no norm, no unembedding."""

    vectors: Float[Tensor, "k prompt d_model"]

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, rows: slice) -> Along:
        return Along(self.vectors[:, rows])

    def directions(self, anatomy: Anatomy) -> tuple[Tensor, Tensor]:
        device = next(anatomy.hf.parameters()).device
        vectors = self.vectors.to(device)
        return vectors, vectors.new_zeros(vectors.shape[:2])


Target = Logits | Along
