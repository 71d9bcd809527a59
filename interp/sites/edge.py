"""Directed pairs of sites."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import SiteError
from interp.sites.site import Site

__all__ = ["Edge"]


@dataclass(frozen=True, slots=True)
class Edge:
    """A directed pair of sites: what ``source`` writes and ``target`` reads."""

    source: Site
    target: Site

    @classmethod
    def parse(cls, text: str | Edge) -> Edge:
        """Read ``"a -> b"``.

        >>> str(Edge.parse("L1.H0.z->blocks.2.attn.hook_k"))
        'L1.H0.z -> L2.k'

        Raises:
            SiteError: there is not exactly one arrow, or an end is not a site.
        """
        if isinstance(text, Edge):
            return text
        ends = text.split("->")
        if len(ends) != 2:
            raise SiteError(f"{text!r} is not an edge: expected 'L1.H0.z -> L2.H1.k'.")
        return cls(Site.parse(ends[0]), Site.parse(ends[1]))

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"
