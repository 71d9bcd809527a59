"""``means``: what a site holds on average over a corpus, token by token.

A mean over text is what mean ablation puts in a part's place: it keeps what all tokens share and
removes what tells them apart. Over a corpus it asks "what does the model lose without this part on
ordinary text?"; over prompts of one template (``interp.ablate(reference=...)``) it keeps the template
too, and asks less. ``by_position`` averages each position of a document alone: where a model's first
tokens differ from all others, one mean over all positions is nobody's.

Numerically sound: chunks are merged around their own means, in float64 (:mod:`interp.geometry.moments`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ResultError, RunError, SiteError, nearest
from interp.geometry.moments import Moments, summing_device
from interp.results import Provenance, Stored
from interp.runs.slices import read
from interp.sites import Site
from interp.store.rows import Rows
from interp.surveys.source import Source, expand, is_whole
from interp.surveys.survey import survey

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Mean", "Means", "means"]

Sites = str | Site | Sequence[str | Site] | None


@dataclass(frozen=True, eq=False, repr=False)
class Means(Stored, Mapping[str, Tensor]):
    """Means of sites over a corpus: a mapping from site to mean, in float32.

    ``means["L2.mlp_out"]`` is [d_model], ``means["L2.z"]`` [head, d_head] and ``means["L2.H3.z"]``
    [d_head]: what ``interp.patch(source=...)`` and ``interp.Replace`` take.

    Attributes:
        sites, shapes: the sites, and the shape of one token's activation at each.
        mean, std: of all numbers of all sites, one site after another, in the sites' unit. ``std`` is
            over tokens, divided by their number.
        n_tokens: tokens averaged over.
        by_position: means of the tokens at each position of a document; NaN where there was none.
            None: not asked for.
        counts: how many tokens stood at each of these positions.
        provenance: model, corpus, versions and the call.
    """

    sites: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    mean: Float[Tensor, " number"]
    std: Float[Tensor, " number"]
    n_tokens: int
    by_position: Float[Tensor, "pos number"] | None
    counts: Int[Tensor, " pos"] | None
    provenance: Provenance

    def __repr__(self) -> str:
        some = ", ".join(self.sites[:4]) + (", ..." if len(self.sites) > 4 else "")
        by = "" if self.counts is None else f", each of {len(self.counts)} positions"
        return f"Means({some}; {self.n_tokens:,} tokens{by})"

    def __getitem__(self, site: str | Site) -> Float[Tensor, "..."]:
        """The mean of a site, or of some heads or neurons of it; ``@7`` for the one at position 7.

        Raises:
            SiteError: it was not surveyed.
            ResultError: a position that was not averaged alone.
        """
        named = Site.parse(site)
        values = self._of(named, self.mean if named.position is None else self._row(named.position))
        return read(values[None, None], replace(named, position=None), None)[0, 0].float()

    def spread(self, site: str | Site) -> Float[Tensor, "..."]:
        """The standard deviation over tokens, laid out as the mean.

        Raises:
            SiteError: it was not surveyed.
            ResultError: of one position.
        """
        named = Site.parse(site)
        if named.position is not None:
            raise ResultError(f"{str(site)!r}: the spread is over all positions; leave '@' out.")
        return read(self._of(named, self.std)[None, None], named, None)[0, 0].float()

    def at_positions(self, site: str | Site) -> Float[Tensor, "pos ..."]:
        """The mean at each position of a document: a source for prompts of that length.

        Raises:
            ResultError: the survey did not keep positions apart.
        """
        if self.by_position is None:
            raise ResultError("these means are over all positions: survey with by_position=n.")
        named = Site.parse(site)
        values = self._of(named, self.by_position)
        return read(values[None], replace(named, position=None), None)[0].float()

    def __contains__(self, site: object) -> bool:
        if not isinstance(site, str | Site):
            return False
        try:
            self[site]
        except (SiteError, ResultError):
            return False
        return True

    def get(self, site: str | Site, default: Any = None) -> Any:
        """The mean, or ``default`` if there is none."""
        return self[site] if site in self else default  # noqa: SIM401 (this is get)

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def _of(self, site: Site, values: Float[Tensor, "*pos number"]) -> Float[Tensor, "*pos ..."]:
        name = str(site.whole)
        if name not in self.sites:
            raise SiteError(f"{name!r} was not surveyed; nearest: {nearest(name, self.sites)}.")
        place = self.sites.index(name)
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        start = sum(sizes[:place])
        part = values[..., start : start + sizes[place]]
        return part.reshape(*values.shape[:-1], *self.shapes[place])

    def _row(self, position: int | str) -> Float[Tensor, " number"]:
        kept = 0 if self.counts is None else len(self.counts)
        seen = isinstance(position, int) and 0 <= position < kept and self.counts is not None
        if not seen or not int(self.counts[position]):  # type: ignore[index]
            raise ResultError(
                f"no mean at position {position!r}: {kept} positions were averaged alone. Survey with "
                "by_position=n for positions 0 to n - 1."
            )
        assert self.by_position is not None
        return self.by_position[position]  # type: ignore[index]

    def to_frame(self) -> DataFrame:
        """One row for each site.

        Columns: ``site``, ``numbers`` (of one token), ``tokens``, ``length`` (‖mean‖), ``spread`` (root of
        the summed variance), ``share`` (‖mean‖² of the mean squared length: 1 = every token alike, 0 = no
        common part).
        """
        import pandas as pd

        rows = []
        for site, shape in zip(self.sites, self.shapes, strict=True):
            named = Site.parse(site)
            length = float(self._of(named, self.mean).norm())
            spread = float(self._of(named, self.std).norm())
            rows.append({
                "site": site, "numbers": torch.Size(shape).numel(), "tokens": self.n_tokens,
                "length": length, "spread": spread,
                "share": length**2 / (length**2 + spread**2) if length or spread else float("nan"),
            })  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, *, title: str = "what activations share over a corpus") -> Figure:
        """For each site how much of the mean squared activation is its mean, 0 to 1."""
        from interp.figures import bars

        frame = self.to_frame()
        return bars(
            frame["site"].tolist(), {"share": frame["share"].tolist()},
            title=f"{title} ({self.n_tokens:,} tokens)", unit="‖mean‖² / mean ‖activation‖²",
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _State:
    moments: tuple[Moments, ...]
    sums: Float[Tensor, "pos number"] | None
    counts: Int[Tensor, " pos"] | None
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Mean:
    """Means of some sites, as a plan for :func:`survey`; parameters as in :func:`means`."""

    sites: Sites = None
    by_position: int | None = None

    def __post_init__(self) -> None:
        if self.by_position is not None and not is_whole(self.by_position, least=1):
            raise RunError(
                f"by_position={self.by_position!r}; expected how many positions to average alone, such "
                "as the context."
            )

    def on(self, sites: Sequence[str]) -> Mean:
        return replace(self, sites=expand(self.sites, sites))

    def reads(self) -> tuple[str, ...]:
        assert isinstance(self.sites, tuple)  # on() has been called
        return tuple(map(str, self.sites))

    def call(self) -> dict[str, Any]:
        return {"verb": "means", "sites": list(self.reads()), "by_position": self.by_position}

    def update(self, state: _State | None, rows: Rows) -> _State:
        parts = [rows[site].flatten(1) for site in self.reads()]
        fresh = tuple(Moments.of(x) for x in parts)
        if state is None:
            shapes = tuple(tuple(rows[site].shape[1:]) for site in self.reads())
            state = _State(fresh, *self._none(parts), shapes)
        else:
            pairs = zip(state.moments, fresh, strict=True)
            state = replace(state, moments=tuple(old.merged(new) for old, new in pairs))
        if state.sums is None or state.counts is None:
            return state
        where = rows.position.to(state.sums.device, torch.int64)
        kept = (where >= 0) & (where < len(state.counts))
        values = torch.cat([x.to(state.sums) for x in parts], 1)[kept]
        return replace(
            state,
            sums=state.sums.index_add(0, where[kept], values),
            counts=state.counts + where[kept].bincount(minlength=len(state.counts)),
        )

    def _none(self, parts: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        if self.by_position is None:
            return None, None
        where = summing_device(parts[0])
        width = sum(x.shape[1] for x in parts)
        return (
            torch.zeros(self.by_position, width, dtype=torch.float64, device=where),
            torch.zeros(self.by_position, dtype=torch.int64, device=where),
        )

    def result(self, state: _State, provenance: Provenance) -> Means:
        alone = None
        if state.sums is not None and state.counts is not None:
            alone = (state.sums / state.counts[:, None]).cpu()  # 0 / 0 is NaN
        count = state.moments[0].count
        return Means(
            sites=self.reads(),
            shapes=state.shapes,
            mean=torch.cat([m.mean for m in state.moments]).cpu(),
            std=torch.cat([(m.squares / count).sqrt() for m in state.moments]).cpu(),
            n_tokens=count,
            by_position=alone,
            counts=None if state.counts is None else state.counts.cpu(),
            provenance=provenance,
        )


def means(
    source: Source | Any,
    sites: Sites = None,
    *,
    by_position: int | None = None,
    tokens: int | None = None,
    size: int = 4096,
    progress: bool | None = None,
) -> Means:
    """Mean and standard deviation of sites over all tokens of a source.

    >>> average = means(store, "L*.mlp_out")                                # doctest: +SKIP
    >>> interp.patch(model, pairs, "L2.mlp_out", source=average["L2.mlp_out"])  # doctest: +SKIP

    Args:
        source: an ActivationStore, ``interp.stream(...)``, or an iterable of Rows.
        sites: patterns (``"L*.mlp_out"``); None: all that the source has.
        by_position: also average each of the first so many positions of a document alone, which
            takes 8 bytes for each of them and number. Tokens further on count in the whole mean only.
        tokens, size, progress: as in :func:`survey`.

    Raises:
        SiteError, RunError: as in :func:`survey`.
    """
    (result,) = survey(
        source, [Mean(sites, by_position)], tokens=tokens, size=size, progress=progress
    )
    return result
