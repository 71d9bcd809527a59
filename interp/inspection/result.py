"""What was found about features: as a table, one by one, as a figure, as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import DictionaryError, ResultError, nearest
from interp.inspection.feature import Feature
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Features"]


@dataclass(frozen=True, eq=False, repr=False)
class Features(Stored):
    """What features of a dictionary are about. Made by :func:`interp.features`.

    Of the examples of a feature the first ``k`` are its strongest tokens, strongest first; then come
    ``sampled`` of each interval of activation, the highest interval first. A place that could not be
    filled has the position -1.

    Attributes:
        names: ``F12``, or ``L0.F12`` in a cross-layer transcoder.
        parts, units: of each its part and its number there.
        sites, reads, writes: of each part of the dictionary the site of its features, what it reads and writes.
        d_sae, dictionary: its width, what it is in words.
        n_tokens: tokens read.
        live: features of the whole dictionary that fired in them; None where only some were asked for.
        count: tokens at which each is active.
        mean: of its activations where it is active.
        most: its largest activation.
        counts: of its positive activations in equal bins from 0 to ``most``.
        k, intervals, sampled, before: of the examples: see :func:`interp.features`.
        values, tokens: of each example's window the activations and the tokens; NaN and -1 where the
            document has none.
        document, position: of the example's own token.
        logit_top_ids, logit_top, logit_bottom_ids, logit_bottom: tokens whose logits a unit of activation
            raises and lowers most, and by how much; None where ``notes["logits"]`` says why.
        logit_kurtosis: excess kurtosis of a feature's logit effects over the vocabulary; 0 = as Gaussian.
        embed_top_ids, embed_top, embed_kurtosis: tokens whose embedding alone excites it most, and how much.
        dec_near, dec_cosine, enc_near, enc_cosine: the nearest features of its part, by what they write and
            what they read.
        fires_with, correlation: places of the features (of these) that are most correlated with it; None
            where there were too many.
        concentration, own_token: share of the most frequent token among its strongest, and that token.
        random_concentration: the same of random directions that read the same activations. Near the embeddings
            many of those too are strongest at one token alone.
        chance_concentration: the same of 1, 2, ... tokens drawn at random from the corpus.
        random_kurtosis: of the logit effects of random directions.
        words: text of each id that occurs, by the id as text.
        notes: what was done for ``logits``, ``embed`` and ``correlation``.
        provenance: model, corpus, seed, versions and the call.
    """

    names: tuple[str, ...]
    parts: tuple[int, ...]
    units: tuple[int, ...]
    sites: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    d_sae: int
    dictionary: str
    n_tokens: int
    live: int | None
    count: Int[Tensor, " feature"]
    mean: Float[Tensor, " feature"]
    most: Float[Tensor, " feature"]
    counts: Int[Tensor, "feature bin"]
    k: int
    intervals: int
    sampled: int
    before: int
    values: Float[Tensor, "feature example window"]
    tokens: Int[Tensor, "feature example window"]
    document: Int[Tensor, "feature example"]
    position: Int[Tensor, "feature example"]
    logit_top_ids: Int[Tensor, "feature top"] | None
    logit_top: Float[Tensor, "feature top"] | None
    logit_bottom_ids: Int[Tensor, "feature top"] | None
    logit_bottom: Float[Tensor, "feature top"] | None
    logit_kurtosis: Float[Tensor, " feature"] | None
    embed_top_ids: Int[Tensor, "feature top"] | None
    embed_top: Float[Tensor, "feature top"] | None
    embed_kurtosis: Float[Tensor, " feature"] | None
    dec_near: Int[Tensor, "feature near"]
    dec_cosine: Float[Tensor, "feature near"]
    enc_near: Int[Tensor, "feature near"]
    enc_cosine: Float[Tensor, "feature near"]
    fires_with: Int[Tensor, "feature near"] | None
    correlation: Float[Tensor, "feature near"] | None
    concentration: Float[Tensor, " feature"]
    own_token: Int[Tensor, " feature"]
    random_concentration: Float[Tensor, " control"]
    chance_concentration: Float[Tensor, "k draw"]
    random_kurtosis: Float[Tensor, " direction"] | None
    words: dict[str, str] | None
    notes: dict[str, str]
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Feature]:
        return (Feature(self, place) for place in range(len(self)))

    def __repr__(self) -> str:
        shown = int((self.count > 0).sum())
        own, null = self.concentration.nanmedian(), self.random_concentration.nanmedian()
        return (
            f"Features({len(self)} of {self.d_sae * len(self.reads):,} in {self.dictionary}; {shown} fire in "
            f"{self.n_tokens:,} tokens; median share of the most frequent token among the strongest: "
            f"{float(own):.0%}, of random directions {float(null):.0%})"
        )

    @property
    def frequency(self) -> Float[Tensor, " feature"]:
        """Share of tokens at which each feature is active, 0 to 1; 0 = dead in these tokens."""
        return self.count.double() / self.n_tokens

    def beyond_random(self, level: float = 0.99) -> Bool[Tensor, " feature"]:
        """Which features' logit effects are sharper (by kurtosis) than those of a share ``level`` of random
        directions. By chance a share of ``1 - level`` is.

        Raises:
            ResultError: there are no logit effects.
        """
        if self.logit_kurtosis is None or self.random_kurtosis is None:
            raise ResultError(self.notes["logits"])
        return self.logit_kurtosis > torch.quantile(self.random_kurtosis, level)

    def chance(self, examples: int, level: float = 0.99) -> float:
        """Concentration that a share ``level`` of so many randomly drawn tokens do not exceed."""
        return float(torch.quantile(self.chance_concentration[max(examples, 1) - 1], level))

    def feature(self, which: int | str) -> Feature:
        """One feature, to look at.

        Args:
            which: its number or its name.

        Raises:
            DictionaryError: it is not among these, or its number is that of several.
        """
        return Feature(self, self.place(which))

    def place(self, which: int | str) -> int:
        """Where a feature stands among these.

        Raises:
            DictionaryError: it is not among these, or its number is that of several.
        """
        if isinstance(which, str) and which in self.names:
            return self.names.index(which)
        if not isinstance(which, str) and self.units.count(which) == 1:
            return self.units.index(which)
        several = isinstance(which, int) and self.units.count(which) > 1
        raise DictionaryError(
            f"feature {which!r} is {'in several layers' if several else 'not among'} these {len(self)}; expected "
            f"a {'name' if several else 'number or a name'}, nearest: {nearest(str(which), self.names)}."
        )

    def to_frame(self) -> DataFrame:
        """One row for each feature.

        Columns: ``name``, ``part``, ``feature``, ``frequency``, ``mean`` (where active), ``max``, ``token`` (the
        most frequent among its strongest) with its share ``concentration`` and the one that 99% of random
        tokens do not exceed, ``chance``; ``raises``, ``lowers`` and ``kurtosis`` of the logit effects;
        ``embedding`` (the token that excites it most); ``nearest_dec``, ``nearest_enc`` with their cosines.
        """
        import pandas as pd

        chance = [self.chance(n) for n in range(1, self.k + 1)]
        rows = []
        for one in self:
            i = one.place
            there = int((self.position[i, : self.k] >= 0).sum())
            rows.append({
                "name": one.name, "part": self.parts[i], "feature": self.units[i],
                "frequency": one.frequency, "mean": float(self.mean[i]), "max": one.most,
                "token": one.token, "concentration": float(self.concentration[i]),
                "chance": chance[there - 1] if there else float("nan"),
                "raises": _first(one.raises), "lowers": _first(one.lowers),
                "kurtosis": None if self.logit_kurtosis is None else float(self.logit_kurtosis[i]),
                "embedding": _first(one.embedding),
                **{f"nearest_{side}": _first(one.near(side)) for side in ("dec", "enc")},
                **{f"cosine_{side}": next((x for _, x in one.near(side)), None) for side in ("dec", "enc")},
            })  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, which: int | str, *, title: str | None = None) -> Figure:
        """One feature as a figure: examples, histogram, logit effects; see :meth:`Feature.plot`."""
        return self.feature(which).plot(title=title)

    def dashboard(
        self, path: str | Path, *, which: Sequence[int | str] | None = None, title: str | None = None
    ) -> Path:  # fmt: skip
        """Write one HTML file to browse the features in: it needs no other file and no network.

        About 3.3 kB for a feature of 40 examples; ``path#F12`` opens a feature.

        Args:
            path: of the file.
            which: numbers or names; None: all.

        Raises:
            DictionaryError: a feature that is not among these.
            ResultError: the place cannot be written, or it is more than a browser opens.
        """
        from interp.inspection.dashboard import write

        places = range(len(self)) if which is None else [self.place(one) for one in which]
        return write(path, self, list(places), title=title)

    def word(self, index: int) -> str:
        """A token's text; its number where no text is known."""
        return (self.words or {}).get(str(index), f"#{index}")

    def with_texts(self, texts: Sequence[str]) -> Features:
        """The same with the texts of a vocabulary; only those that occur are kept."""
        ids = {i for x in (self.tokens, self.own_token, *self._ends()) for i in x.unique().tolist()}
        words = {str(i): texts[i] for i in sorted(ids) if i >= 0}
        return replace(self, words=words)

    def _ends(self) -> list[Tensor]:
        ends: list[Any] = [self.logit_top_ids, self.logit_bottom_ids, self.embed_top_ids]
        return [end for end in ends if end is not None]


def _first(pairs: Sequence[tuple[str, float]]) -> str | None:
    return pairs[0][0] if pairs else None
