"""Sums over the tokens of each text, for every row and variant; from them all metrics follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.geometry.moments import Moments
from interp.sites import Site

__all__ = ["Table"]


@dataclass(eq=False)
class Table:
    """What the batches so far have left.

    Attributes:
        texts: how many there are.
        sums: variant and row → column → a sum for each text.
        fired: variant and number of a dictionary → tokens in which each feature was active, by part.
        moments: model (by its first variant) and site → moments of what stands there.
        tokens: scored so far.
    """

    texts: int
    sums: dict[tuple[str, str], dict[str, Float[Tensor, " text"]]] = field(default_factory=dict)
    fired: dict[tuple[str, int], Int[Tensor, "part d_sae"]] = field(default_factory=dict)
    moments: dict[tuple[str, Site], Moments] = field(default_factory=dict)
    tokens: int = 0

    def add(
        self, variant: str, row: str, numbers: Int[Tensor, " row"], columns: Mapping[str, Tensor]
    ) -> None:
        """Add some tokens' values to their texts' sums."""
        sums = self.sums.setdefault((variant, row), {})
        for name, values in columns.items():
            if name not in sums:
                sums[name] = torch.zeros(self.texts, dtype=torch.float64)
            sums[name].index_add_(0, numbers, values.cpu().double())

    def merge(self, other: Table) -> None:
        """Add another batch's, or another model's on the same texts."""
        for key, columns in other.sums.items():
            own = self.sums.setdefault(key, {})
            for name, values in columns.items():
                own[name] = own[name] + values if name in own else values
        for place, counts in other.fired.items():
            self.fired[place] = self.fired[place] + counts if place in self.fired else counts
        for at, moments in other.moments.items():
            self.moments[at] = self.moments[at].merged(moments) if at in self.moments else moments
        self.tokens += other.tokens

    def columns(
        self,
        variant: str,
        row: str,
        model: str,
        sites: tuple[Site, ...],
        means: Mapping[Site, Tensor],
    ) -> dict[str, Float[Tensor, " text"]]:
        """A row's sums, with ``variance``: squared distances to the mean over the scored tokens.

        They were summed around the mean ȳ' of other texts; Σ‖y − ȳ‖² = Σ‖y − ȳ'‖² − n‖ȳ − ȳ'‖².

        Args:
            model: the variant under which the model's moments stand.
            sites: what the row writes to.
            means: ȳ' of each site.
        """
        sums = dict(self.sums.get((variant, row), {}))
        if "spread" in sums:
            off = 0.0
            for site in sites:
                mean = self.moments[model, site].mean.cpu()
                off += float((mean - means[site].cpu().double()).square().sum())
            sums["variance"] = sums["spread"] - off * sums["tokens"]
            seen = sums["tokens"] > 0  # all, unless the pass was interrupted
            sums = {name: values[seen] for name, values in sums.items()}
        return sums
