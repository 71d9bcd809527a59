"""What of a site is read: one number for each token and unit.

A unit is a neuron of ``mlp_post``, a head (by the norm of what it holds), a coordinate of the residual
stream, or whatever a ``transform`` makes: a direction, a feature of a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interp.errors import RunError, SiteError
from interp.sites import Site
from interp.store.rows import Rows
from interp.surveys.source import expand

__all__ = ["Reading", "Transform", "pieces"]

Transform = Callable[[Float[Tensor, "row ..."]], Float[Tensor, "row unit"]]


@dataclass(frozen=True, eq=False)
class Reading:
    """One number for each token and unit of a site.

    Attributes:
        site: a whole site, or heads (``"L2.H1,3.z"``) or neurons (``"L2.mlp_post.N77"``) of one.
        norm: the length of the last axis in place of its numbers: one unit for each head, or one.
        transform: applied to the whole site's rows in float32, [row, ...] → [row, unit]. It must treat each row
            alone. None: the site's own numbers.
        units: numbers of the units wanted; None: all.
    """

    site: str
    norm: bool = False
    transform: Transform | None = None
    units: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        site: str | Site,
        *,
        norm: bool = False,
        transform: Transform | None = None,
        units: int | Iterable[int] | None = None,
    ) -> Reading:
        """A reading of what a user has written.

        Raises:
            RunError: units that are no different whole numbers, or named twice over.
        """
        chosen = None if units is None else (units,) if isinstance(units, int) else tuple(units)
        if chosen is not None and (
            not chosen
            or len(set(chosen)) < len(chosen)
            or any(not hasattr(u, "__index__") or int(u) < 0 for u in chosen)
        ):
            raise RunError(
                f"units={units!r}; expected different whole numbers from 0 up, or None for all."
            )
        if transform is not None and (norm or not callable(transform)):
            raise RunError(
                f"transform={transform!r}{' with a norm' if norm else ''}; expected a function from "
                "rows [row, ...] to [row, unit], and of='value' or 'abs'."
            )
        named = Site.parse(site)
        if named.position is not None:
            raise SiteError(
                f"{str(site)!r}: a survey reads every token; leave '@{named.position}' out."
            )
        if (named.unit is not None or named.head is not None) and (transform or chosen):
            raise RunError(
                f"{str(site)!r} names its own part: leave units= and transform= out, or name the whole "
                f"site, {str(named.whole)!r}."
            )
        return cls(str(named), norm, transform, None if chosen is None else tuple(map(int, chosen)))

    def on(self, sites: Sequence[str]) -> Reading:
        """The same reading of a source that has these sites; a TransformerLens name becomes short.

        Raises:
            SiteError: it has none of that name, or the name means several.
        """
        found = expand(self.site, sites)
        if len(found) != 1:
            raise SiteError(
                f"{self.site!r} means {len(found)} sites ({', '.join(found)}); expected one."
            )
        named = Site.parse(self.site)
        whole = Site.parse(found[0])
        return replace(self, site=str(replace(whole, head=named.head, unit=named.unit)))

    @property
    def whole(self) -> str:
        """The site whose rows are read."""
        return str(Site.parse(self.site).whole)

    @property
    def as_read(self) -> tuple[str, bool, Transform | None]:
        """What a unit's number means: where it is equal, equal numbers are one unit."""
        return self.whole, self.norm, self.transform

    def __call__(self, rows: Rows) -> Float[Tensor, "row unit"]:
        """The numbers in float32.

        Raises:
            RunError: a transform that gives other shapes, or units that do not exist.
        """
        x = rows[self.whole].float()
        if self.transform is not None:
            x = self._transformed(x)
        elif self.norm:
            x = x.norm(dim=-1)
        out = x.flatten(1) if x.ndim > 1 else x[:, None]
        chosen = self._chosen(rows)
        if chosen is None:
            return out
        if max(chosen) >= out.shape[1]:
            raise RunError(
                f"unit {max(chosen)} of {self.whole}: expected 0 to {out.shape[1] - 1}, there are "
                f"{out.shape[1]}."
            )
        return out[:, list(chosen)]

    def _transformed(self, x: Tensor) -> Float[Tensor, "row unit"]:
        assert self.transform is not None
        out = self.transform(x)
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(x):
            shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise RunError(
                f"transform= made {shape} of {list(x.shape)}; expected [{len(x)}, unit]: a row of numbers "
                "for each token."
            )
        if not bool(out.isfinite().all()):
            raise RunError("transform= made NaN or infinite numbers; expected finite ones.")
        return out.float()

    def _chosen(self, rows: Rows) -> tuple[int, ...] | None:
        """Numbers of the units wanted, among all that there are."""
        named = Site.parse(self.site)
        shape = rows[self.whole].shape[1:]
        if named.unit is not None:
            return named.unit.expand(shape[-1], "unit")
        if named.head is None:
            return self.units
        heads = named.head.expand(shape[0], "head")
        if self.norm:
            return heads
        return tuple(head * shape[1] + i for head in heads for i in range(shape[1]))

    def numbers(self, rows: Rows, count: int) -> tuple[int, ...]:
        """The number of each of the ``count`` units."""
        return self._chosen(rows) or tuple(range(count))

    def names(self, rows: Rows, count: int) -> tuple[str, ...]:
        """``L2.mlp_post.N77``, ``L2.H3.z``, ``L2.H3.z#5`` or ``L2.resid_pre#5`` for each unit."""
        whole, shape = Site.parse(self.whole), rows[self.whole].shape[1:]
        numbers = self.numbers(rows, count)
        if self.transform is not None:
            return tuple(f"{whole}#{n}" for n in numbers)
        if self.norm:
            return tuple(str(whole.at(head=n)) if len(shape) > 1 else str(whole) for n in numbers)
        if len(shape) > 1:
            wide = shape[-1]
            return tuple(f"{whole.at(head=n // wide)}#{n % wide}" for n in numbers)
        if whole.kind.units:
            return tuple(str(whole.at(unit=n)) for n in numbers)
        return tuple(f"{whole}#{n}" for n in numbers)

    @property
    def call(self) -> dict[str, Any]:
        """For the record; of a transform its name alone."""
        name = getattr(self.transform, "__qualname__", type(self.transform).__name__)
        return {
            "site": self.site, "norm": self.norm, "transform": self.transform and name,
            "units": None if self.units is None else list(self.units),
        }  # fmt: skip


def pieces(rows: Rows, units: int, *, most: int = 2**22) -> Iterable[Rows]:
    """Rows in pieces of at most ``most`` numbers, so that a wide dictionary takes no more memory."""
    step = max(64, most // max(units, 1))
    for start in range(0, len(rows), step):
        yield rows if step >= len(rows) else rows.take(slice(start, start + step))
