"""Examples of what makes units active: as a table, as text, as a figure, as a page to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.results import Provenance, Stored
from interp.surveys.examples_view import ExamplesView, Passage, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["TopExamples", "can_read", "check_reader"]


@dataclass(frozen=True, eq=False, repr=False)
class TopExamples(Stored):
    """The tokens at which units are strongest, each with the tokens around it.

    Of the examples of a unit the first ``k`` are its strongest, strongest first; those behind were
    drawn at random, strongest first too. A place that could not be filled has the document -1.

    Attributes:
        site, of: what was read (see :func:`top_examples`).
        names, units: of each unit its name and its number.
        k: how many examples are the strongest ones.
        before: tokens of a window before the example's own.
        values: what the unit holds at each token of the window, in the site's unit; NaN where no
            token of the document stands beside it.
        tokens: ids of the window; -1 there.
        document, position: of the example's own token, as the source counts them.
        n_tokens: tokens surveyed.
        words: text of each id that occurs, by the id as text; None: not known yet.
        provenance: model, corpus, versions and the call.
    """

    site: str
    of: str
    names: tuple[str, ...]
    units: tuple[int, ...]
    k: int
    before: int
    values: Float[Tensor, "unit example window"]
    tokens: Int[Tensor, "unit example window"]
    document: Int[Tensor, "unit example"]
    position: Int[Tensor, "unit example"]
    n_tokens: int
    words: dict[str, str] | None
    provenance: Provenance

    def __repr__(self) -> str:
        text = "" if self.words is not None else "; no text yet: .with_text(model)"
        return (
            f"TopExamples({self.site} ({self.of}): {len(self.units)} units × "
            f"{self.document.shape[1]} examples from {self.n_tokens:,} tokens{text})"
        )

    @property
    def value(self) -> Float[Tensor, "unit example"]:
        """What the unit holds at the example's own token; NaN where there is no example."""
        return self.values[..., self.before]

    def with_text(self, model: Any) -> TopExamples:
        """The same examples with the text of their tokens.

        Args:
            model: a Model that has a tokenizer, or a Hugging Face tokenizer.

        Raises:
            ResultError: it is neither.
        """
        check_reader(model)
        ids = self.tokens.unique().tolist()
        known = [index for index in ids if index >= 0]
        if hasattr(model, "to_str_tokens"):
            texts = model.to_str_tokens(known)
        else:
            texts = [str(model.decode([index])) for index in known]
        return replace(self, words={str(i): text for i, text in zip(known, texts, strict=True)})

    def to_frame(self) -> DataFrame:
        """One row for each example.

        Columns: ``unit``, ``name``, ``kind`` (``top`` or ``sampled``), ``rank`` (from 1), ``value``,
        ``document``, ``position``, ``token`` (its id), ``text`` (the window, the example's own token in
        ⟦brackets⟧).
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for place, unit in enumerate(self.units):
            for passage in self._passages(place):
                rows.append({
                    "unit": unit, "name": self.names[place], "kind": passage.kind,
                    "rank": passage.rank, "value": passage.values[passage.centre],
                    "document": passage.document, "position": passage.position,
                    "token": passage.ids[passage.centre], "text": _bracketed(passage),
                })  # fmt: skip
        columns = ["unit", "name", "kind", "rank", "value", "document", "position", "token", "text"]
        return pd.DataFrame(rows, columns=columns)

    def show(self, unit: int | str | None = None, n: int | None = None) -> str:
        """A unit's examples as lines of text: value, document and position, and the passage.

        Args:
            unit: its number or name; None: the only one.
            n: how many of each kind; None: all.

        Raises:
            ResultError: no such unit, or several and none named.
        """
        place = self._place(unit)
        lines = [f"{self.names[place]}, {self.of}, strongest of {self.n_tokens:,} tokens"]
        kind = "top"
        for passage in self._passages(place):
            if passage.kind != kind:
                kind = passage.kind
                lines.append("drawn at random where it is not zero")
            if n is None or passage.rank <= n:
                at = f"{passage.document}@{passage.position}"
                lines.append(
                    f"{passage.values[passage.centre]:+10.3f}  {at:>10}  {_bracketed(passage)}"
                )
        return "\n".join(lines)

    def view(self, units: int | str | Iterable[int | str] | None = None) -> ExamplesView:
        """Examples as a page to read, each token shaded by what the unit holds there.

        >>> top.view([5, 77]).save("neurons.html")                          # doctest: +SKIP

        Args:
            units: numbers or names; None: all.

        Raises:
            ResultError: no such unit; on showing or saving, more than a browser can open.
        """
        asked = range(len(self.units)) if units is None else [
            self._place(unit) for unit in ([units] if isinstance(units, int | str) else units)
        ]  # fmt: skip
        return ExamplesView(
            tuple((self.names[place], tuple(self._passages(place))) for place in asked),
            title=f"where {self.site} is strongest" + f", {self.provenance.model}" * bool(self.provenance.model),
            lead=f"{self.n_tokens:,} tokens surveyed; red is positive, blue negative, on a scale of each unit's own.",
        )  # fmt: skip

    def plot(
        self, unit: int | str | None = None, *, n: int | None = None, title: str | None = None
    ) -> Figure:
        """A unit's examples as a concordance: one line each, its own token in the middle, shaded.

        Raises:
            ResultError: no such unit, several and none named, or no examples.
        """
        from interp.surveys.figure import concordance

        place = self._place(unit)
        passages = [p for p in self._passages(place) if n is None or p.rank <= n]
        if not passages:
            raise ResultError(f"{self.names[place]} has no examples to draw: it is never active.")
        return concordance(
            passages,
            title=title or f"{self.names[place]}: strongest of {self.n_tokens:,} tokens",
            unit="length" if self.of == "norm" else "activation",
        )

    def _passages(self, place: int) -> list[Passage]:
        out = []
        for i, document in enumerate(self.document[place].tolist()):
            if document == -1 and int(self.tokens[place, i, self.before]) == -1:
                continue
            ids, values = self.tokens[place, i].tolist(), self.values[place, i].tolist()
            real = [j for j, index in enumerate(ids) if index != -1]
            top = i < self.k
            out.append(Passage(
                "top" if top else "sampled", i + 1 if top else i + 1 - self.k, document,
                int(self.position[place, i]), tuple(ids[j] for j in real),
                tuple(self._text(ids[j]) for j in real), tuple(values[j] for j in real),
                real.index(self.before),
            ))  # fmt: skip
        return out

    def _text(self, index: int) -> str:
        return f" {index}" if self.words is None else self.words[str(index)]

    def _place(self, unit: int | str | None) -> int:
        if unit is None and len(self.units) == 1:
            return 0
        if isinstance(unit, str) and unit in self.names:
            return self.names.index(unit)
        if not isinstance(unit, str) and unit in self.units:
            return self.units.index(unit)
        some = [str(u) for u in self.units] + list(self.names)
        raise ResultError(
            f"no unit {unit!r} among these {len(self.units)}; expected a number or a name, nearest: "
            f"{nearest(str(unit), some)}."
        )


def can_read(model: Any) -> bool:
    """Whether this can turn token ids into text."""
    if hasattr(model, "to_str_tokens"):
        return getattr(model, "tokenizer", True) is not None
    return hasattr(model, "decode")


def check_reader(model: Any) -> None:
    """ResultError for what cannot read ids."""
    if not can_read(model):
        without = " without a tokenizer" if hasattr(model, "to_str_tokens") else ""
        raise ResultError(
            f"the text was asked of a {type(model).__name__}{without}; expected a Model or a tokenizer."
        )


def _bracketed(passage: Passage) -> str:
    words = [printable(word) for word in passage.words]
    word = words[passage.centre]
    space = " " * (len(word) - len(word.lstrip(" ")))
    words[passage.centre] = f"{space}⟦{word.lstrip(' ')}⟧"
    return "".join(words).strip(" ")
