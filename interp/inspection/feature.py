"""One feature, to look at: printed, in a notebook, or as a figure for a paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from interp.surveys.examples_view import Passage, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp.inspection.result import Features

__all__ = ["Feature"]

Pairs = tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False, repr=False)
class Feature:
    """One feature of a :class:`Features`.

    Attributes:
        of: the result it stands in.
        place: where.
    """

    of: Features
    place: int

    @property
    def name(self) -> str:
        """``F12``, or ``L0.F12``."""
        return self.of.names[self.place]

    @property
    def site(self) -> str:
        """Its address where the dictionary stands in the model: ``L0.mlp.F12``."""
        part, unit = self.of.parts[self.place], self.of.units[self.place]
        return f"{self.of.sites[part]}.F{unit}"

    @property
    def frequency(self) -> float:
        """Share of tokens at which it is active."""
        return float(self.of.frequency[self.place])

    @property
    def most(self) -> float:
        """Its largest activation."""
        return float(self.of.most[self.place])

    @property
    def token(self) -> str | None:
        """The most frequent token among its strongest; None if it never fires."""
        index = int(self.of.own_token[self.place])
        return None if index < 0 else self.of.word(index)

    @property
    def top(self) -> tuple[Passage, ...]:
        """Its strongest tokens with their context, strongest first."""
        return self._passages(0, self.of.k, "top")

    @property
    def sampled(self) -> tuple[tuple[float, float, tuple[Passage, ...]], ...]:
        """Tokens drawn from each interval of activation, the highest first: from, up to, and examples,
        strongest first."""
        of, out = self.of, []
        for i in range(of.intervals if of.sampled else 0):
            start, level = of.k + i * of.sampled, of.intervals - i
            step = self.most / of.intervals
            found = self._passages(start, start + of.sampled, "sampled")
            ranked = sorted(found, key=lambda p: -p.values[p.centre])
            out.append(((level - 1) * step, level * step, tuple(ranked)))
        return tuple(out)

    @property
    def raises(self) -> Pairs:
        """Tokens whose logits it raises most, and by how much for one unit of activation."""
        return self._pairs(self.of.logit_top_ids, self.of.logit_top)

    @property
    def lowers(self) -> Pairs:
        """Tokens whose logits it lowers most."""
        return self._pairs(self.of.logit_bottom_ids, self.of.logit_bottom)

    @property
    def embedding(self) -> Pairs:
        """Tokens whose embedding alone excites it most."""
        return self._pairs(self.of.embed_top_ids, self.of.embed_top)

    def near(self, side: str) -> Pairs:
        """The nearest features and their cosines: by what they write (``"dec"``) or read (``"enc"``)."""
        ids, cosines = getattr(self.of, f"{side}_near"), getattr(self.of, f"{side}_cosine")
        prefix = self.name.rpartition("F")[0]
        pairs = zip(ids[self.place].tolist(), cosines[self.place].tolist(), strict=True)
        return tuple((f"{prefix}F{i}", value) for i, value in pairs if i >= 0)

    @property
    def fires_with(self) -> Pairs:
        """The features that are most correlated with it, and Pearson's r."""
        if self.of.fires_with is None or self.of.correlation is None:
            return ()
        ids, r = self.of.fires_with[self.place].tolist(), self.of.correlation[self.place].tolist()
        return tuple((self.of.names[i], x) for i, x in zip(ids, r, strict=True) if i >= 0)

    def __repr__(self) -> str:
        of, lines = self.of, [f"{self.name} of {self.of.dictionary}"]
        if not int(of.count[self.place]):
            return f"{lines[0]}\n  never active in {of.n_tokens:,} tokens"
        lines.append(
            f"  active on {self.frequency:.3%} of {of.n_tokens:,} tokens, there {float(of.mean[self.place]):.3g} on "
            f"average, {self.most:.3g} at most; {float(of.concentration[self.place]):.0%} of the strongest are "
            f"{self.token!r}"
        )
        for label, pairs in (
            ("raises", self.raises),
            ("lowers", self.lowers),
            ("embedding", self.embedding),
        ):
            if pairs:
                lines.append(f"  {label:<9} " + ", ".join(f"{w!r} {x:+.2f}" for w, x in pairs[:6]))
        for label, pairs in (("writes as", self.near("dec")), ("reads as", self.near("enc")),
                             ("with", self.fires_with)):  # fmt: skip
            if pairs:
                lines.append(f"  {label:<9} " + ", ".join(f"{n} {x:.2f}" for n, x in pairs[:4]))
        lines += [_line(passage) for passage in self.top[:6]]
        for low, high, passages in self.sampled:
            if passages:
                lines.append(f"  from {low:.3g} to {high:.3g}")
                lines += [_line(passage) for passage in passages[:2]]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from interp.inspection.dashboard import html
        from interp.views.page import framed

        return framed(html(self.of, [self.place]), height=640)

    def plot(self, *, title: str | None = None) -> Figure:
        """Examples, the histogram of positive activations and the logit effects in one figure.

        Raises:
            ResultError: it never fires.
        """
        from interp.inspection.figure import feature_figure

        return feature_figure(self, title=title)

    def _pairs(self, ids: Tensor | None, values: Tensor | None) -> Pairs:
        if ids is None or values is None:
            return ()
        pairs = zip(ids[self.place].tolist(), values[self.place].tolist(), strict=True)
        return tuple((self.of.word(i), value) for i, value in pairs)

    def _passages(self, start: int, stop: int, kind: str) -> tuple[Passage, ...]:
        of, out = self.of, []
        for i in range(start, stop):
            if int(of.position[self.place, i]) < 0:
                continue
            ids, values = of.tokens[self.place, i].tolist(), of.values[self.place, i].tolist()
            real = [j for j, index in enumerate(ids) if index != -1]
            out.append(Passage(
                kind, i - start + 1, int(of.document[self.place, i]), int(of.position[self.place, i]),
                tuple(ids[j] for j in real), tuple(of.word(ids[j]) for j in real),
                tuple(values[j] for j in real), real.index(of.before),
            ))  # fmt: skip
        return tuple(out)


def _line(passage: Passage) -> str:
    words = [printable(word) for word in passage.words]
    word = words[passage.centre]
    words[passage.centre] = f"{' ' * word.startswith(' ')}⟦{word.strip(' ')}⟧"
    return f"  {passage.values[passage.centre]:9.3f}  {''.join(words)}"
