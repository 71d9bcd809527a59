"""Dictionaries put into a run, by a pair of edits for each site they read and write.

An edit at the read site computes the features and remembers what they write; an edit at the written
site puts that there. So each dictionary reads what the run holds by then, other dictionaries' outputs
included. A cross-layer transcoder collects what all its earlier layers add to a site. Only the tokens
that ``keep`` names are replaced; the others (BOS, padding) stay as the model has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError
from interp.harvesting.wanted import wanted
from interp.models.model import Model
from interp.runs.edits import Edit
from interp.sites import Site

__all__ = ["Placed", "Written", "replacing", "splicing", "written"]

#: Numbers of a [row, d_sae] matrix that exist at a time.
_AT_ONCE = 2**25

Rows = Float[Tensor, "row d"]


@dataclass(frozen=True, eq=False)
class Placed:
    """A dictionary with a name, at its sites in a model.

    Attributes:
        reads, writes: the sites, one of each for every part.
    """

    name: str
    dictionary: Dictionary
    reads: tuple[Site, ...]
    writes: tuple[Site, ...]

    @classmethod
    def of(cls, model: Model, dictionary: Dictionary, name: str) -> Placed:
        """A dictionary in a model that has its sites, with its widths.

        Raises:
            SiteError: the model lacks a site.
            DictionaryError: a site has another width.
        """
        spec = dictionary.spec
        reads, writes = (tuple(map(Site.parse, sites)) for sites in (spec.reads, spec.writes))
        shapes = wanted(model, (*reads, *writes)).shapes
        for sites, width in ((reads, spec.d_in), (writes, spec.d_out)):
            for site in sites:
                found = torch.Size(shapes[site]).numel()
                if found != width:
                    raise DictionaryError(
                        f"{name!r} is made for {width} numbers at {str(site)!r}, and {model.name!r} "
                        f"has {found} there: is it a dictionary of another model?"
                    )
        return cls(name, dictionary, reads, writes)

    def with_dictionary(self, other: Dictionary) -> Placed:
        """Another dictionary at the same place."""
        return replace(self, dictionary=other)

    def sums(self, outs: Sequence[Float[Tensor, "row _"]]) -> tuple[Rows, ...]:
        """What stands at each written site, from what each part writes."""
        dictionary, n = self.dictionary, len(self.writes)
        if not dictionary.spec.crossing:
            return tuple(outs)
        pieces = [out.split(dictionary.d_out, -1) for out in outs]
        biases = dictionary.b_dec.split(dictionary.d_out)
        return tuple(
            biases[site] + sum(pieces[part][site - part] for part in range(site + 1))
            for site in range(n)
        )


@dataclass(frozen=True, eq=False)
class Written:
    """What one part of a dictionary does with some rows.

    Attributes:
        out: what it writes, one site's numbers after another's; with biases, but for those of a
            cross-layer transcoder.
        active: active features of each row.
        size: sum of the feature activations of each row.
        fired: rows in which each feature is active.
    """

    out: Float[Tensor, "row width"]
    active: Int[Tensor, " row"]
    size: Float[Tensor, " row"]
    fired: Int[Tensor, " d_sae"]


def written(dictionary: Dictionary, part: int, x: Rows) -> Written:
    """One part on some rows, in pieces that bound the memory of the features.

    Args:
        x: what the part reads; on any device, of any float type.
    """
    x = x.to(dictionary.device)
    step = max(1, _AT_ONCE // dictionary.d_sae)
    fired = torch.zeros(dictionary.d_sae, dtype=torch.int64, device=x.device)
    outs, active, size = [], [], []
    for rows in x.split(step) if len(x) else (x,):
        features = dictionary.encode_part(part, rows)
        if dictionary.spec.crossing:
            outs.append(features @ dictionary.parts[part].dec)
        else:
            outs.append(dictionary.decode(features, rows))
        on = features != 0
        active.append(on.sum(-1))
        size.append(features.abs().sum(-1))
        fired += on.sum(0)
    return Written(torch.cat(outs), torch.cat(active), torch.cat(size), fired)


def splicing(
    placed: Sequence[Placed],
    keep: Bool[Tensor, "row pos"],
    *,
    change: Callable[[Rows], Rows] | None = None,
) -> dict[str, Edit]:
    """Edits that put dictionaries into a run of one batch.

    Args:
        placed: dictionaries that write to different sites.
        keep: the tokens that are replaced.
        change: what is done to a dictionary's output before it is put in (null controls).

    Raises:
        DictionaryError: two dictionaries write to one site.
    """
    taken = [site for one in placed for site in one.writes]
    if len(set(taken)) < len(taken):
        double = next(site for site in taken if taken.count(site) > 1)
        raise DictionaryError(
            f"several dictionaries write to {str(double)!r}: only one can be spliced in at a time."
        )
    steps: dict[Site, list[_Step]] = {}
    for one in placed:
        memory = _Memory(one)
        for part, (read, write) in enumerate(zip(one.reads, one.writes, strict=True)):
            steps.setdefault(read, []).append(_Reading(memory, part))
            steps.setdefault(write, []).append(_Writing(memory, part, change))
    return {
        str(site): _Kept(tuple(sorted(s, key=lambda x: x.rank)), keep) for site, s in steps.items()
    }


def replacing(
    values: Mapping[Site, Float[Tensor, " d"] | float], keep: Bool[Tensor, "row pos"]
) -> dict[str, Edit]:
    """Edits that put one vector in the place of every kept token's: zero and mean ablation."""
    return {str(site): _Kept((_Constant(value),), keep) for site, value in values.items()}


# -- inside ----------------------------------------------------------------------------------


@dataclass(eq=False)
class _Memory:
    """What a dictionary's parts have written so far in the run under way."""

    placed: Placed
    sums: dict[int, Rows] = field(default_factory=dict)

    def read(self, part: int, x: Rows) -> None:
        """Add what a part writes to the sums of the sites it writes to."""
        dictionary = self.placed.dictionary
        if part == 0:
            self.sums.clear()  # of a run that did not come to its end
        out = written(dictionary, part, x).out
        for site, piece in enumerate(out.split(dictionary.d_out, -1), start=part):
            self.sums[site] = self.sums[site] + piece if site in self.sums else piece

    def write(self, site: int) -> Rows:
        """What stands at a site, once all parts up to it have read."""
        dictionary, out = self.placed.dictionary, self.sums.pop(site)
        bias = dictionary.b_dec.split(dictionary.d_out)[site]
        return out + bias if dictionary.spec.crossing else out


class _Step:
    """Something done to the kept rows of a site."""

    rank = 1

    def __call__(self, x: Rows) -> Rows | None:
        raise NotImplementedError


@dataclass(eq=False)
class _Reading(_Step):
    memory: _Memory
    part: int

    def __call__(self, x: Rows) -> None:
        self.memory.read(self.part, x)


@dataclass(eq=False)
class _Writing(_Step):
    memory: _Memory
    part: int
    change: Callable[[Rows], Rows] | None

    def __call__(self, x: Rows) -> Rows:
        out = self.memory.write(self.part)
        return out if self.change is None else self.change(out)

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Of one dictionary (an SAE), reading comes first; else others read what was written."""
        spec = self.memory.placed.dictionary.spec
        return 2 if spec.reads[self.part] == spec.writes[self.part] else 0


@dataclass(eq=False)
class _Constant(_Step):
    value: Float[Tensor, " d"] | float

    def __call__(self, x: Rows) -> Rows:
        return torch.as_tensor(self.value).to(x).expand_as(x)


@dataclass(frozen=True, eq=False)
class _Kept:
    """Steps on the kept tokens of a tensor [row, pos, ...]; a run may be cut into parts."""

    steps: tuple[_Step, ...]
    keep: Bool[Tensor, "row pos"]

    def __call__(self, x: Float[Tensor, "row pos ..."]) -> Float[Tensor, "row pos ..."]:
        keep = self.keep.to(x.device)
        rows = x[keep].flatten(1)
        for step in self.steps:
            new = step(rows)
            if new is not None:
                rows = new.to(x)
                x[keep] = rows.unflatten(-1, x.shape[2:])
        return x

    def rows(self, start: int, stop: int, total: int) -> _Kept:
        return replace(self, keep=self.keep[start:stop])
