"""Which features are looked at, what they are called, and their activations alone.

A feature is ``F1204``; of a cross-layer transcoder, where each layer has features of its own,
``L0.F1204``. Activations treat a feature by itself in all dictionaries but TopK, so that only the rows of
the encoder that are wanted are multiplied; under TopK all of them compete and all are computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError
from interp.geometry.moments import summing_device
from interp.sites import Site
from interp.store.rows import Rows
from interp.surveys.source import expand

__all__ = ["Chosen", "feature_name", "parsed"]

_NAME = re.compile(r"(?P<where>(?:.*\.)?)F(?P<unit>\d+)")
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some features of a dictionary, in the order of its parts.

    Attributes:
        dictionary: whose they are.
        units: of each part the numbers of its features; None: all.
        alone: of each part a dictionary of these features only, or None where all must be computed.
    """

    dictionary: Dictionary
    units: tuple[Int[Tensor, " feature"] | None, ...]
    alone: tuple[Dictionary | None, ...]

    @classmethod
    def all(cls, dictionary: Dictionary) -> Chosen:
        """Every feature of every part."""
        none = (None,) * len(dictionary.spec.reads)
        return cls(dictionary, none, none)

    @classmethod
    def some(cls, dictionary: Dictionary, pairs: Sequence[Pair]) -> Chosen:
        """The features with these parts and numbers."""
        units, alone = [], []
        for part in range(len(dictionary.spec.reads)):
            own = [unit for p, unit in pairs if p == part]
            index = torch.tensor(own, dtype=torch.int64, device=dictionary.device)
            units.append(index)
            together = dictionary.spec.activation == "topk" or not own
            alone.append(None if together else _alone(dictionary, part, index))
        return cls(dictionary, tuple(units), tuple(alone))

    @property
    def pairs(self) -> list[Pair]:
        """Part and number of each."""
        d_sae = self.dictionary.d_sae
        return [
            (part, unit)
            for part, units in enumerate(self.units)
            for unit in (range(d_sae) if units is None else units.tolist())
        ]

    def __len__(self) -> int:
        return sum(self.dictionary.d_sae if u is None else len(u) for u in self.units)

    @property
    def device(self) -> torch.device:
        """Where activations are looked at: the dictionary's, or the CPU if that has no float64 (MPS)."""
        return summing_device(self.dictionary.b_dec)

    @property
    def width(self) -> int:
        """Numbers that are computed for each row at once."""
        several = zip(self.units, self.alone, strict=True)
        return max(
            self.dictionary.d_sae if alone is None and (units is None or len(units)) else len(self)
            for units, alone in several
        )

    def __call__(self, rows: Rows, sites: Sequence[str]) -> Float[Tensor, "row feature"]:
        """Activations of these features, in float32.

        Args:
            rows: activations of the model.
            sites: what each part reads, as the rows call it.

        Raises:
            DictionaryError: activations of another width than the encoder's.
        """
        out = []
        for part, (units, alone) in enumerate(zip(self.units, self.alone, strict=True)):
            if units is not None and not len(units):
                continue
            x = self.read(rows, sites[part])
            if alone is not None:
                out.append(alone.encode(x))
            else:
                whole = self.dictionary.encode_part(part, x)
                out.append(whole if units is None else whole[:, units])
        return torch.cat(out, 1).float().to(self.device)

    def read(self, rows: Rows, site: str) -> Float[Tensor, "row d_in"]:
        """What an encoder reads, on the dictionary's device; heads one after another."""
        x = rows[site].flatten(1).to(self.dictionary.device)
        if x.shape[1] != self.dictionary.d_in:
            raise DictionaryError(
                f"{site} has {x.shape[1]} numbers for each token; this dictionary reads "
                f"{self.dictionary.d_in}: is it one of another model?"
            )
        return x


def _alone(dictionary: Dictionary, part: int, units: Tensor) -> Dictionary:
    """A dictionary of one part's features alone; what it writes is left at zero."""
    spec = dictionary.spec
    options: dict[str, Any] = dict(spec.options)
    if "k" in options:
        options["k"] = min(int(options["k"]), len(units))  # BatchTopK's; its threshold decides
    kind: Any = "sae" if spec.kind == "sae" else "transcoder"
    small = replace(
        spec, kind=kind, reads=(spec.reads[part],), writes=(spec.writes[part],),
        d_sae=len(units), options=options,
    )  # fmt: skip
    state, prefix = dictionary.state_dict(), f"parts.{part}."
    tensors = {"b_dec": state["b_dec"][: spec.d_out]}
    for name, tensor in state.items():
        if name.startswith(prefix):
            own = tensor[:, : spec.d_out] if name == f"{prefix}dec" else tensor
            each = own.ndim > 0 and len(own) == spec.d_sae
            tensors["parts.0." + name.removeprefix(prefix)] = own[units] if each else own
    return Dictionary.of(small, tensors).to(dictionary.device)


def feature_name(dictionary: Dictionary, part: int, unit: int) -> str:
    """``F1204``, or ``L0.F1204`` in a cross-layer transcoder."""
    return f"{_layer(dictionary, part)}F{unit}"


def _layer(dictionary: Dictionary, part: int) -> str:
    layer = Site.parse(dictionary.spec.reads[part]).layer
    return f"L{layer.text}." if dictionary.spec.crossing and layer is not None else ""


def parsed(dictionary: Dictionary, asked: Sequence[int | str]) -> list[Pair]:
    """Part and number of each feature named, in the order of the parts and as named in each.

    Raises:
        DictionaryError: nothing named, or one twice, or one that is not there.
    """
    found = [_pair(dictionary, one) for one in asked]
    if not found or len(set(found)) < len(found):
        raise DictionaryError(
            f"which={list(asked)!s:.80}; expected different features, such as [5, 1204] or ['F5']."
        )
    return sorted(found, key=lambda pair: pair[0])


def _pair(dictionary: Dictionary, asked: int | str) -> Pair:
    d_sae, crossing = dictionary.d_sae, dictionary.spec.crossing
    plain = isinstance(asked, int) and not isinstance(asked, bool) and not crossing
    name = _NAME.fullmatch(f"F{asked}" if plain else str(asked))
    if name and int(name["unit"]) < d_sae:
        for part, site in enumerate(dictionary.spec.features):
            if name["where"] in (_layer(dictionary, part), f"{site}."):
                return part, int(name["unit"])
    example = feature_name(dictionary, 0, min(5, d_sae - 1))
    raise DictionaryError(
        f"no feature {asked!r} in this dictionary; expected a number from 0 to {d_sae - 1}"
        + (
            f" with its layer, such as {example!r}."
            if crossing
            else f" or a name like {example!r}."
        )
    )


def places(dictionary: Dictionary, sites: Sequence[str]) -> tuple[str, ...]:
    """What each part reads, as a source that has these sites calls it.

    Raises:
        SiteError: the source lacks one.
    """
    return tuple(expand(read, sites)[0] for read in dictionary.spec.reads)
