"""Examples of units as a page: passages of text, each token shaded by the unit's activation.

Plain HTML and style, without a script: it reads the same in a notebook, a browser and a text reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interp.errors import ResultError
from interp.results import write_atomically
from interp.views.page import framed, page

__all__ = ["ExamplesView", "Passage", "printable"]

_MOST = 64e6  # characters: more than a browser opens
_RED, _BLUE = "209,73,91", "51,101,138"
_STYLE: Final = """
.interp-examples { font: 14px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 0 0 1.5rem; }
.interp-examples h2 { font-size: 1rem; margin: 1rem 0 .3rem; }
.interp-examples h3 { font-size: .85rem; font-weight: 600; color: #555; margin: .6rem 0 .2rem; }
.interp-examples table { border-collapse: collapse; }
.interp-examples td { padding: .15rem .8rem .15rem 0; border-bottom: 1px solid #eee; vertical-align: baseline; }
.interp-examples .number { text-align: right; font-variant-numeric: tabular-nums; }
.interp-examples .place { color: #777; font-size: 12px; white-space: nowrap; }
.interp-examples .text { font: 14px/1.7 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; max-width: 60rem; }
.interp-examples .text span { border-radius: 2px; padding: 1px 0; unicode-bidi: isolate; }
.interp-examples .text .own { outline: 1.5px solid #222; }
"""


@dataclass(frozen=True)
class Passage:
    """One example: the tokens of a window, as far as its document has them.

    Attributes:
        kind: ``top`` or ``sampled``.
        rank: its place among those of its kind, from 1.
        document, position: of the example's own token.
        ids, words, values: of each token its id, its text, and what the unit holds there.
        centre: which of them is the example's own.
    """

    kind: str
    rank: int
    document: int
    position: int
    ids: tuple[int, ...]
    words: tuple[str, ...]
    values: tuple[float, ...]
    centre: int


@dataclass(frozen=True, eq=False, repr=False)
class ExamplesView:
    """Passages for each unit. A notebook shows it; :meth:`save` writes it.

    Attributes:
        units: of each its name and its passages.
        title: its heading.
        lead: a sentence under the heading.
    """

    units: tuple[tuple[str, tuple[Passage, ...]], ...]
    title: str
    lead: str = ""

    def __repr__(self) -> str:
        return (
            f"ExamplesView({len(self.units)} units; shown in a notebook, or .save('examples.html'))"
        )

    def fragment(self) -> str:
        """The view as HTML to put into a page: a section with its own style.

        Raises:
            ResultError: more than a browser can open.
        """
        size = sum(110 * len(p.words) + 200 for _, passages in self.units for p in passages)
        if size > _MOST:
            raise ResultError(
                f"{len(self.units)} units make a view of about {size / 1e6:.0f} MB, more than the "
                f"{_MOST / 1e6:.0f} MB that a browser opens: name some, as in .view([5, 77])."
            )
        body = "".join(_unit(name, passages) for name, passages in self.units)
        return f'<section class="interp-examples">\n<style>{_STYLE}</style>\n{body}</section>'

    def html(self) -> str:
        """The view as a whole document, which needs no network."""
        return page(self.title, [self.fragment()], lead=self.lead)

    def save(self, path: str | Path) -> Path:
        """Write the document to one HTML file, whole or not at all.

        Raises:
            ResultError: the place cannot be written, or the view is too large to open.
        """
        return write_atomically(path, self.html().encode())

    def _repr_html_(self) -> str:
        lines = sum(2 + len(passages) for _, passages in self.units)
        return framed(self.html(), height=min(640, 110 + 34 * lines))


def printable(text: str) -> str:
    """Text in which nothing is invisible or turns the direction: such characters are written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _unit(name: str, passages: Sequence[Passage]) -> str:
    from markupsafe import escape

    top = max((abs(v) for p in passages for v in p.values), default=0.0) or 1.0
    out = [f"<h2>{escape(name)}</h2>\n"]
    if not passages:
        out.append("<p>never active</p>\n")
    for kind, heading in (("top", "strongest"), ("sampled", "drawn at random where not zero")):
        rows = [_row(p, top) for p in passages if p.kind == kind]
        if rows:
            out.append(f"<h3>{heading}</h3>\n<table>\n{''.join(rows)}</table>\n")
    return "".join(out)


def _row(passage: Passage, top: float) -> str:
    from markupsafe import escape

    words = []
    for i, (word, value) in enumerate(zip(passage.words, passage.values, strict=True)):
        shade = f"{_RED if value > 0 else _BLUE},{0.85 * abs(value) / top:.2f}"
        own = ' class="own"' if i == passage.centre else ""
        words.append(
            f'<span{own} style="background:rgba({shade})" title="{value:+.4g}">'
            f"{escape(printable(word))}</span>"
        )
    return (
        f'<tr><td class="number">{passage.values[passage.centre]:+.3f}</td>'
        f'<td class="place">document {passage.document} @ {passage.position}</td>'
        f'<td class="text">{"".join(words)}</td></tr>\n'
    )
