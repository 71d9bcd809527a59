"""An attention result as something to look into, in a notebook or as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from interp.results import write_atomically
from interp.views.attention import across, attention_html, side_of
from interp.views.page import framed, page

__all__ = ["AttentionView"]

_THUMBNAIL = 84  # height of a row of thumbnails, in CSS pixels


@dataclass(frozen=True, eq=False, repr=False)
class AttentionView:
    """An interactive view of attention patterns. A notebook shows it; :meth:`save` writes it.

    Attributes:
        tokens: the prompt's tokens as text.
        patterns: each query's share of attention to each key; nothing after the query.
        names: the heads' names; ``"L1.H3"`` puts each layer in a row.
        title: its heading.
        lengths: ‖what each key's value writes‖ for each head, for the value-weighted mode; None: no
            such mode.
    """

    tokens: tuple[str, ...]
    patterns: Float[Tensor, "head query key"]
    names: tuple[str, ...]
    title: str = "attention patterns"
    lengths: Float[Tensor, "head key"] | None = None

    def __repr__(self) -> str:
        return (
            f"AttentionView({len(self.names)} heads, {len(self.tokens)} tokens; shown in a notebook, "
            "or .save('attention.html'))"
        )

    def fragment(self) -> str:
        """The view as HTML to put into a page (:func:`attention_html`)."""
        return attention_html(self.tokens, self.patterns, self.names, lengths=self.lengths)

    def html(self) -> str:
        """The view as a whole document."""
        return page(self.title, [self.fragment()])

    def save(self, path: str | Path) -> Path:
        """Write the document to one HTML file, whole or not at all.

        Raises:
            ResultError: the place cannot be written, or the view is too large to open.
        """
        return write_atomically(path, self.html().encode())

    def _repr_html_(self) -> str:
        n, columns = len(self.tokens), across(self.names)
        heads = min(_THUMBNAIL * -(-len(self.names) // columns), 530)
        matrix = 90 + n * side_of(n)
        beside = 68 * columns + matrix < 840  # a notebook's cell is about that wide
        text = min(30 * (1 + sum(map(len, self.tokens)) // 90), 230)
        pair = max(heads, matrix) if beside else heads + matrix
        return framed(self.html(), height=180 + text + pair)
