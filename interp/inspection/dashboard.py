"""Features as one HTML file to browse: a list to search and sort, and a card for the feature at hand.

The data stands in the file as compact JSON and is drawn by a script when it is looked at, so that
thousands of features open at once. The page's content policy lets the browser run what stands in the file
and load nothing. Token text is put into the page as text, never as HTML.

A window is one string: of each token its place among the words of the file and its activation as a share of
the feature's largest, in 62 steps, as digits of base 64. A feature of 40 examples of 16 tokens takes about
3.3 kB: 1000 of them 3.3 MB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from interp.errors import ResultError
from interp.results import write_atomically
from interp.surveys.examples_view import Passage, printable

if TYPE_CHECKING:
    from interp.inspection.feature import Feature
    from interp.inspection.result import Features

__all__ = ["html", "write"]

_HERE = Path(__file__).parent
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_STEPS = 62  # of an activation: 0, then 1 to 62; 63 stands where no token does
_MOST = 64e6  # characters: more than a browser opens
_LISTED = 200  # features in the table of readers without scripts


def write(
    path: str | Path, features: Features, places: Sequence[int], *, title: str | None
) -> Path:
    """The page as a file, whole or not at all.

    Raises:
        ResultError: the place cannot be written, or it is more than a browser opens.
    """
    if not places:
        raise ResultError("a dashboard of no features; name some, or leave which= out for all.")
    document = html(features, places, title=title)
    if len(document) > _MOST:
        raise ResultError(
            f"{len(places):,} features make a page of {len(document) / 1e6:.0f} MB, more than the "
            f"{_MOST / 1e6:.0f} MB that a browser opens: name some with which=, or ask features() for fewer "
            "examples."
        )
    return write_atomically(path, document.encode())


def html(features: Features, places: Sequence[int], *, title: str | None = None) -> str:
    """The page as text. A single feature has no list beside it."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_read("dashboard.html.j2"))
    shown = [features.feature(features.names[place]) for place in places]
    what = shown[0].name if len(shown) == 1 else f"{len(places):,} features"
    return template.render(
        title=title or f"{what} of {_sites(features)}, {features.provenance.model}",
        features=features, shown=shown[:_LISTED], hidden=len(shown) - _LISTED, printable=printable,
        data=Markup(_json(_data(features, shown))),
        css=Markup(_read("dashboard.css")), js=Markup(_read("dashboard.js")),
    )  # fmt: skip


def _sites(features: Features) -> str:
    first, last = (features.sites[i].removesuffix(".features") for i in (0, -1))
    return first if first == last else f"{first} to {last}"


def _data(features: Features, shown: Sequence[Feature]) -> dict[str, Any]:
    ids = {i for one in shown for i in _ids(one)}
    words = {index: place for place, index in enumerate(sorted(ids))}
    wide = 1 if len(words) <= 64 else 2 if len(words) <= 64**2 else 3
    encoder = _Encoder(words, wide)
    null = features.random_concentration
    return {
        "words": [features.word(index) for index in words], "wide": wide,
        "tokens": features.n_tokens, "window": features.values.shape[-1],
        "before": features.before, "intervals": features.intervals if features.sampled else 0,
        "chance": [_short(features.chance(n)) for n in range(1, features.k + 1)],
        "random": [_short(q) for q in _quantiles(null)],
        "sharp": None if features.random_kurtosis is None
        else [_short(q) for q in _quantiles(features.random_kurtosis)],
        "notes": features.notes, "features": [encoder.feature(one) for one in shown],
    }  # fmt: skip


def _quantiles(x: torch.Tensor) -> list[float]:
    """Median and 99th percentile of what is there."""
    x = x[x.isfinite()]
    return torch.quantile(x, torch.tensor([0.5, 0.99])).tolist() if len(x) else [math.nan] * 2


def _ids(one: Feature) -> Iterable[int]:
    of, i = one.of, one.place
    for ids in (of.tokens, of.own_token, of.logit_top_ids, of.logit_bottom_ids, of.embed_top_ids):
        if ids is not None:
            yield from (index for index in ids[i].unique().tolist() if index >= 0)


class _Encoder:
    """Writes features with words as their places among the words of the file."""

    def __init__(self, words: dict[int, int], wide: int) -> None:
        self.words, self.wide = words, wide
        self.coded = {index: self._digits(place) for index, place in words.items()}

    def feature(self, one: Feature) -> dict[str, Any]:
        of, i = one.of, one.place
        strata = [list(one.top), *(list(passages) for _, _, passages in one.sampled)]
        passages = [passage for stratum in strata for passage in stratum]
        token = int(of.own_token[i])
        return {
            "n": one.name, "t": one.site, "f": int(of.count[i]), "m": _short(float(of.mean[i])), "x": _short(one.most),
            "h": of.counts[i].tolist(), "s": [len(stratum) for stratum in strata],
            "e": "".join(self._window(one, passage) for passage in passages),
            "v": [_short(p.values[p.centre]) for p in passages],
            "p": [n for p in passages for n in (p.document, p.position)],
            "w": self.words.get(token, -1), "c": _short(float(of.concentration[i])),
            "q": None if of.logit_kurtosis is None else _short(float(of.logit_kurtosis[i])),
            "u": self._tokens(of.logit_top_ids, of.logit_top, i),
            "d": self._tokens(of.logit_bottom_ids, of.logit_bottom, i),
            "b": self._tokens(of.embed_top_ids, of.embed_top, i),
            "nd": _pairs(one.near("dec")), "ne": _pairs(one.near("enc")), "nc": _pairs(one.fires_with),
        }  # fmt: skip

    def _window(self, one: Feature, passage: Passage) -> str:
        none, most = _DIGITS[-1] * (self.wide + 1), one.most
        cells = [
            self.coded[index] + _DIGITS[_level(value, most)]
            for index, value in zip(passage.ids, passage.values, strict=True)
        ]
        left = one.of.before - passage.centre
        right = one.of.values.shape[-1] - left - len(cells)
        return none * left + "".join(cells) + none * right

    def _digits(self, place: int) -> str:
        powers = range(self.wide - 1, -1, -1)
        return "".join(_DIGITS[place >> 6 * power & 63] for power in powers)

    def _tokens(
        self, ids: torch.Tensor | None, values: torch.Tensor | None, i: int
    ) -> list[Any] | None:
        if ids is None or values is None:
            return None
        places = [self.words[index] for index in ids[i].tolist()]
        return [places, [_short(value) for value in values[i].tolist()]]


def _level(value: float, most: float) -> int:
    """0 where it is not active, else 1 to 62."""
    return 0 if not value > 0 else max(1, min(_STEPS, round(_STEPS * value / most)))


def _pairs(pairs: Sequence[tuple[str, float]]) -> list[list[Any]]:
    return [[name for name, _ in pairs], [_short(value) for _, value in pairs]]


def _short(value: float) -> Any:
    """Four digits; None for what is no number."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short


def _json(data: Any) -> str:
    """JSON that can stand inside a script element: no ``<``, ``>`` or ``&``."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache
def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
