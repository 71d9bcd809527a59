"""Steering vectors: a direction in the stream for each site, how long it is, and whether it is real.

Two numbers say what a vector is worth before it is used: its length beside what stands at the
site (``relative_norm``), and how well the vectors of two halves of the data agree (``reliability``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, ResultError, RunError, SiteError, nearest
from interp.models.model import Model
from interp.results import Provenance, Stored
from interp.runs.edits import Add, Edit
from interp.runs.plan import resolve, units_of
from interp.sites import Site
from interp.steering.edits import AddFrom, ProjectOut

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["SteeringVector"]


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector(Stored):
    """A direction for each of some sites. Made by :func:`steering_vector`.

    Attributes:
        sites: where each was read, and is added.
        values: the vectors, in the unit of the activations; they point to the positive prompts.
        typical_norm: mean length of the activations that they were made from.
        reliability: mean cosine between the vectors of two random halves of the prompts; near 1
            the vector is of the contrast, near 0 of these very prompts. NaN where a set has
            fewer than two prompts, and for random vectors.
        positions: where in the prompts they were read.
        method: how.
        counts: number of positive and of negative prompts.
        provenance: model, prompts, seed, versions and the call.
    """

    sites: tuple[str, ...]
    values: Float[Tensor, "site d"]
    typical_norm: Float[Tensor, " site"]
    reliability: Float[Tensor, " site"]
    positions: int | str
    method: str
    counts: tuple[int, int]
    provenance: Provenance

    def __repr__(self) -> str:
        some = ", ".join(self.sites[:3]) + (", ..." if len(self.sites) > 3 else "")
        share = self.relative_norm
        sizes = f"{share.min():.2g}" + (f"-{share.max():.2g}" if len(share) > 1 else "")
        return (
            f"SteeringVector({some}; {self.method} at {self.positions}, {self.counts[0]} + "
            f"{self.counts[1]} prompts; length {sizes} of the activations')"
        )

    @property
    def norm(self) -> Float[Tensor, " site"]:
        """Length of each vector."""
        return self.values.norm(dim=-1)

    @property
    def relative_norm(self) -> Float[Tensor, " site"]:
        """Length of each vector, in units of the mean length of the activations there."""
        return self.norm / self.typical_norm

    def at(self, site: str | Site) -> SteeringVector:
        """The vector of one site.

        Raises:
            SiteError: there is none.
        """
        name = str(Site.parse(site))
        if name not in self.sites:
            raise SiteError(
                f"no vector of {name!r} here; the nearest are {nearest(name, self.sites)}."
            )
        i = self.sites.index(name)
        parts = {word: getattr(self, word)[i : i + 1]
                 for word in ("values", "typical_norm", "reliability")}  # fmt: skip
        return replace(self, sites=(name,), **parts)

    def edit(
        self,
        strength: int | float = 1.0,
        *,
        positions: int | str | Sequence[int | str] | None = None,
        start: int | str | None = None,
    ) -> dict[str, Edit]:
        """The edit that adds ``strength`` times the vector, for ``model.run`` and ``model.generate``.

        >>> model.generate("My name is", edit=vector.edit(2.0, start="END"))  # doctest: +SKIP

        Args:
            strength: 1 adds the whole difference between the two sets; negative turns it round.
            positions: only there: a number among real tokens, a name that the prompts define
                (``"END"``), or several. In generation such an edit acts on the prompt alone.
                None: at every position, BOS included, and on each new token.
            start: from this position on, new tokens included.

        Raises:
            RunError: several sites, or both a position and a start.
        """
        site, value = self._only("edit()")
        if isinstance(strength, str) or not hasattr(strength, "__float__"):
            raise RunError(f"strength={strength!r}; expected a number, 1 for the whole difference.")
        if positions is not None and start is not None:
            raise RunError(
                f"positions={positions!r} and start={start!r}: give one of them, or neither."
            )
        if start is not None:
            return {site: AddFrom(strength * value, start)}
        if positions is None:
            return {site: Add(strength * value)}
        listed = [positions] if isinstance(positions, int | str) else list(positions)
        return {f"{site}@{where}": Add(strength * value) for where in listed}

    def project_out(self, sites: str | Sequence[str] | None = None) -> dict[str, Edit]:
        """Directional ablation: the edit that removes this direction, at its own site or at others.

        Arditi et al. 2024 (arXiv:2406.11717) remove one direction from the residual stream
        everywhere: ``["L*.resid_pre", "L*.resid_mid", "L*.resid_post"]``.

        Raises:
            RunError: vectors of several sites.
        """
        site, value = self._only("project_out()")
        where = site if sites is None else sites
        return {name: ProjectOut(value) for name in ([where] if isinstance(where, str) else where)}

    def random_like(self, seed: int = 0, *, orthogonal: bool = False) -> SteeringVector:
        """A random direction of the same length at each site: the control.

        Drawn evenly from all directions. That is a weak control where activations keep to few
        of them: a random direction then does less than any real one would.

        Args:
            orthogonal: only directions at a right angle to this vector.
        """
        generator = torch.Generator().manual_seed(seed)
        random = torch.randn(self.values.shape, generator=generator, dtype=torch.float64)
        own = self.values.double()
        if orthogonal:
            unit = own / own.norm(dim=-1, keepdim=True).clamp(min=1e-30)
            random = random - (random * unit).sum(-1, keepdim=True) * unit
        random = random / random.norm(dim=-1, keepdim=True) * own.norm(dim=-1, keepdim=True)
        return replace(
            self,
            values=random.to(self.values.dtype),
            reliability=torch.full_like(self.reliability, torch.nan),
            method=f"random direction, seed {seed}",
        )

    def cosine(self, other: SteeringVector) -> Float[Tensor, " site"]:
        """Cosine with another's vector at each site.

        Raises:
            ResultError: the two are not of the same sites and width.
        """
        if self.sites != other.sites or self.values.shape != other.values.shape:
            raise ResultError(
                f"cosine() needs vectors of the same sites and width; these are {self!r} and "
                f"{other!r}. Pick one site of each with .at(site)."
            )
        return torch.nn.functional.cosine_similarity(self.values, other.values, dim=-1)

    def check(self, model: Model) -> None:
        """Whether the vectors fit a model.

        Raises:
            SiteError: it does not have one of the sites.
            ModelError: its activations have another width.
        """
        for name in self.sites:
            (site,) = resolve(model.anatomy, [name])
            widths = {
                "d_model": model.d_model,
                "d_head": model.d_head,
                "d_mlp": model.anatomy.d_mlp,
                "d_sae": units_of(model.anatomy, site) if site.kind.spliced else None,
            }
            width = widths.get(site.kind.axes[-1])
            if width is not None and width != self.values.shape[-1]:
                raise ModelError(
                    f"the vector of {name!r} has length {self.values.shape[-1]}, and {model.name!r} "
                    f"has {width} there: it was made on {self.provenance.model!r}. Make one "
                    "for this model."
                )

    def to_frame(self) -> DataFrame:
        """One row for each site: ``norm``, ``relative_norm``, ``reliability``."""
        import pandas as pd

        return pd.DataFrame({
            "site": list(self.sites), "norm": self.norm.tolist(),
            "relative_norm": self.relative_norm.tolist(), "reliability": self.reliability.tolist(),
        })  # fmt: skip

    @classmethod
    def load(cls, path: str | Path, *, model: Model | None = None) -> SteeringVector:
        """Read saved vectors; with ``model``, check that they fit it (:meth:`check`).

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
            ModelError, SiteError: they do not fit.
        """
        vector = super().load(path)
        if model is not None:
            vector.check(model)
        return vector

    def parts(self) -> Mapping[str, SteeringVector]:
        """Each site's vector alone."""
        return {site: self.at(site) for site in self.sites}

    def _only(self, what: str) -> tuple[str, Float[Tensor, " d"]]:
        if len(self.sites) != 1:
            raise RunError(
                f"{what} of vectors of {len(self.sites)} sites: pick one with "
                f".at({self.sites[0]!r}). Differences of several layers overlap: adding them all "
                "would count most of the contrast several times."
            )
        return self.sites[0], self.values[0]
