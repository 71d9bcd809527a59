"""Means, variances and norms of a store's sites, in one pass and without cancellation.

Each piece of rows is centred in float64 and merged with those before (:mod:`interp.geometry.moments`).
Norms are of a row as one vector (heads side by side). Their histogram has eight bins for each factor
of two, so that a median is right to within 9% and a handful of massive activations are seen, without
keeping any norm.

Source: Sun et al. 2024, arXiv:2402.17762 (massive activations).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import BudgetError, ResultError, StoreError
from interp.progress import Bar
from interp.results import Provenance, read_file, versions, write_file
from interp.runs.memory import as_text, available
from interp.store.asking import Sites, site_names
from interp.store.moments import BINS, LOWEST, PER_OCTAVE, RowMoments

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from interp.store.store import ActivationStore

__all__ = ["Statistics", "stats"]

_PIECE = 2**22  # numbers in float64 at a time: 32 MiB


@dataclass(frozen=True, eq=False, repr=False)
class Statistics:
    """What is to be known about the rows of some sites.

    Attributes:
        sites: their names.
        count: how many rows.
        mean: for each site the mean of each coordinate, in the row's shape; float64.
        variance: the same for the variance (n - 1 below; NaN of a single row).
        covariance: for each site the covariance of all coordinates in a row, flattened (n - 1
            below); empty unless asked for.
        norm_mean, norm_std, norm_max: of the rows' Euclidean norms.
        rms: root of the mean squared coordinate: ``sqrt(mean ‖x‖² / d)``.
        norm_histogram: how many rows have a norm from ``2**(b/8 - 64)`` to the next.
        provenance: model, store, versions and the call.
    """

    sites: tuple[str, ...]
    count: int
    mean: Mapping[str, Float[Tensor, "..."]]
    variance: Mapping[str, Float[Tensor, "..."]]
    covariance: Mapping[str, Float[Tensor, "d d"]]
    norm_mean: Float[Tensor, " site"]
    norm_std: Float[Tensor, " site"]
    norm_max: Float[Tensor, " site"]
    rms: Float[Tensor, " site"]
    norm_histogram: Int[Tensor, "site bin"]
    provenance: Provenance

    def __repr__(self) -> str:
        norms = ", ".join(
            f"{site} norm {mean:.3g} ± {std:.2g}"
            for site, mean, std in zip(
                self.sites[:3], self.norm_mean.tolist(), self.norm_std.tolist(), strict=False
            )
        )
        return f"Statistics({self.count:,} rows: {norms}{', …' if self.sites[3:] else ''})"

    def norm_quantile(self, q: float) -> Float[Tensor, " site"]:
        """The norm that a share ``q`` of the rows does not exceed, from the histogram.

        Right to within 9%, the width of a bin; 1 gives the exact maximum. Norms below 2⁻⁶⁴ count as
        0, those above 2⁶⁴ as the maximum.

        Raises:
            ResultError: ``q`` is no share.
        """
        if not 0 <= q <= 1:
            raise ResultError(f"q={q}; expected a share from 0 to 1.")
        share = self.norm_histogram.double().cumsum(-1) / self.count
        bins = (share < q).sum(-1).clamp(max=BINS - 1)
        middle = 2.0 ** ((bins.double() + 0.5) / PER_OCTAVE + LOWEST)
        middle[bins == 0], middle[bins == BINS - 1] = 0.0, torch.inf
        return torch.minimum(middle, self.norm_max) if q < 1 else self.norm_max

    def to_frame(self) -> DataFrame:
        """One row for each site: rows counted, norms (mean, std, median, max), rms, spread.

        ``mean_norm`` is the norm of the mean row: beside ``norm_mean`` it says how much of a row is
        common to all. ``std`` is the root of the mean variance of a coordinate.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "site": list(self.sites),
                "rows": self.count,
                "d": [self.mean[site].numel() for site in self.sites],
                "norm_mean": self.norm_mean.tolist(),
                "norm_std": self.norm_std.tolist(),
                "norm_median": self.norm_quantile(0.5).tolist(),
                "norm_max": self.norm_max.tolist(),
                "rms": self.rms.tolist(),
                "mean_norm": [float(self.mean[site].norm()) for site in self.sites],
                "std": [float(self.variance[site].mean().sqrt()) for site in self.sites],
            }
        )

    def plot(self, *, title: str | None = None) -> Figure:
        """How norms are spread at each site: shares of rows, norms on a scale of factors of two.

        Rows of zeros are not drawn.
        """
        from interp.figures.style import PALETTE, canvas

        drawn = self.norm_histogram.clone()
        drawn[:, 0] = 0  # rows of zeros have no place on this scale
        used = drawn.sum(0).nonzero().flatten().tolist() or [-LOWEST * PER_OCTAVE]
        low, high = used[0] // PER_OCTAVE, used[-1] // PER_OCTAVE + 1
        bins = slice(low * PER_OCTAVE, high * PER_OCTAVE)
        edges = [low + i / PER_OCTAVE for i in range((high - low) * PER_OCTAVE + 1)]
        ticks = range(low, high + 1, -(-(high - low) // 9))
        with canvas(5.5, 3.0) as (figure, axes):
            for i, site in enumerate(self.sites):
                share = (drawn[i, bins].double() / self.count).tolist()
                style = ("-", "--", ":")[i // len(PALETTE) % 3]
                axes.stairs(share, edges, label=site, color=PALETTE[i % len(PALETTE)],
                            linestyle=style, linewidth=1.3)  # fmt: skip
            axes.set_xticks(list(ticks), [f"{2.0 ** (octave + LOWEST):.4g}" for octave in ticks])
            axes.set_xlabel("norm of a row")
            axes.set_ylabel("share of rows in a bin")
            axes.set_title(title or f"Norms of {self.count:,} rows")
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, fontsize=7, ncols=1 + len(self.sites) // 9)
        return figure

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        for name in ("mean", "variance", "covariance"):
            tensors |= {f"{name}.{site}": x for site, x in getattr(self, name).items()}
        meta = {name: getattr(self, name) for name in ("sites", "count", "provenance")}
        return write_file(path, "Statistics", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read a saved result.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
        """
        tensors, meta = read_file(path, "Statistics")
        fields: dict[str, Any] = {"mean": {}, "variance": {}, "covariance": {}}
        for name, x in tensors.items():
            group, _, site = name.partition(".")
            if site:
                fields[group][site] = x
            else:
                fields[name] = x
        fields["sites"], fields["count"] = tuple(meta["sites"]), meta["count"]
        return cls(provenance=Provenance(**meta["provenance"]), **fields)


def stats(
    store: ActivationStore,
    sites: Sites = None,
    *,
    covariance: bool = False,
    rows: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Statistics:
    """Statistics of a store's rows, in float64, with a few pieces of rows in memory at a time.

    Args:
        store: where the rows are.
        sites: some of its sites; None: those that it was opened with.
        covariance: also the covariance of each site's coordinates: 8 d² bytes for each site, and
            n d² multiplications.
        rows: take this many, drawn by ``seed``; None: all.
        seed: of the draw.
        progress: show a bar; None: where a person can see it.

    Raises:
        StoreError: a site that it does not have; no rows, or fewer than asked for; rows that are not
            finite.
        BudgetError: the covariances do not fit in memory.
    """
    names = site_names(store.folder, store.sites, sites)
    if not names:
        raise StoreError("statistics of no site: name one, or leave sites out for all.")
    count = len(store) if rows is None else rows
    if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= count <= len(store):
        raise StoreError(
            f"statistics of {count!r} rows; this store has {len(store)}, take 1 or more."
        )
    width = {name: prod(store.sites[name]) for name in names}
    _check_room(width, covariance)
    found: dict[str, RowMoments] = {}
    size = max(1, min(count, _PIECE // max(1, sum(width.values()))))
    order = {"shuffle": None} if rows is None else {"shuffle": "rows", "seed": seed}
    left = count
    with Bar(total=count, what="statistics", show=progress, least=2**20) as bar:
        for part in store.batches(size, sites=names, **order):
            part = part.take(slice(0, left))
            for name in names:
                x = part[name].flatten(1)
                if not x.isfinite().all():
                    raise StoreError(_not_finite(store, part, name))
                new = RowMoments.of(x, covariance=covariance)
                found[name] = found[name].merged(new) if name in found else new
            left -= len(part)
            bar.advance(len(part))
            if not left:
                break
    call = {"verb": "stats", "store": store.manifest.id, "sites": list(names), "covariance": covariance, "rows": rows}  # fmt: skip
    made = store.manifest
    provenance = Provenance(
        call, made.model, made.weights_hash, None, None if rows is None else seed, versions()
    )
    return _result(store, names, count, found, provenance)


def _result(
    store: ActivationStore,
    names: tuple[str, ...],
    count: int,
    found: Mapping[str, RowMoments],
    provenance: Provenance,
) -> Statistics:
    shapes = {name: store.sites[name] for name in names}
    square = {n: s.cross.products / (count - 1) for n, s in found.items() if s.cross is not None}
    norms = [site.norms for site in found.values()]
    norm_mean = torch.stack([one.mean[0] for one in norms])
    square_mean = norm_mean.square() + torch.stack([one.squares[0] for one in norms]) / count
    d = torch.tensor([prod(shape) for shape in shapes.values()])
    return Statistics(
        sites=names,
        count=count,
        mean={n: s.rows.mean.reshape(shapes[n]) for n, s in found.items()},
        variance={n: s.rows.variance.reshape(shapes[n]) for n, s in found.items()},
        covariance=square,
        norm_mean=norm_mean,
        norm_std=torch.stack([one.variance[0].sqrt() for one in norms]),
        norm_max=torch.stack([site.norm_max for site in found.values()]),
        rms=(square_mean / d).sqrt(),
        norm_histogram=torch.stack([site.histogram for site in found.values()]),
        provenance=provenance,
    )


def _check_room(width: Mapping[str, int], covariance: bool) -> None:
    needed, free = 8 * sum(d * d for d in width.values()), available(torch.device("cpu"))
    if covariance and 3 * needed > free:  # the sums, a piece's, and both together
        raise BudgetError(
            f"the covariances of {', '.join(width)} take {as_text(3 * needed)}, and {as_text(free)} "
            "are free: ask for fewer sites at a time, or for none (covariance=False)."
        )


def _not_finite(store: ActivationStore, part: Any, name: str) -> str:
    bad = int((~part[name].flatten(1).isfinite().all(-1)).nonzero()[0])
    remedy = (
        "Harvest in bfloat16 or float32, which do not overflow where float16 does."
        if store.dtype is torch.float16
        else "The model itself computed that: see model.run on this document."
    )
    return (
        f"{name} of {str(store.folder)!r} is not finite at document {int(part.document[bad])}, position "
        f"{int(part.position[bad])}: statistics of it would say nothing. {remedy}"
    )
