"""What scores and roles look like: the colour, width and opacity of an edge, the colour of a role.

Colours are the house's: red where the score is positive, blue where it is negative, zero in between. A
score near zero still has a colour that shows on white; width is proportional to |score|, and where there are
many edges the small ones fade.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

__all__ = ["INK", "PAPER", "PLAIN", "SOFT", "TINT", "Pen", "colour", "role_colours"]

INK: Final = "#1f2328"
SOFT: Final = "#65707b"
PAPER: Final = "#ffffff"
PLAIN: Final = "#8a939c"  # an edge without a score
SIZE: Final = "#6d4a80"  # an edge whose score has no sign
_WIDTHS: Final = (0.4, 4.4)  # points, at a score of zero and at the largest
_FEW: Final = 40  # edges that are all drawn at full strength
_LEAST: Final = 0.16  # opacity

#: Neither the red nor the blue of a score.
_ROLES: Final = ("#66a182", "#edae49", "#8d6cab", "#3fa7a3", "#b98a5b", "#d089b2", "#9aa64a", "#c9b8a0",
                 "#3e7556", "#a87517", "#5d3a6e", "#1f6f6c", "#7d5528", "#9a4f7c", "#66702a", "#7a6c55")  # fmt: skip
OTHER_ROLES: Final = "#b8b8b8"
TINT: Final = 0.5  # opacity of a role's colour


@dataclass(frozen=True)
class Pen:
    """How edges are drawn, from the largest |score| and how many they are.

    Attributes:
        most: the |score| of full colour and width; 0 where nothing has a score.
        n: how many edges there are.
        signed: whether scores have a sign; if not, there is one colour.
    """

    most: float
    n: int
    signed: bool = True

    @classmethod
    def of(cls, values: Iterable[float], n: int, *, signed: bool = True) -> Pen:
        return cls(max(map(abs, values), default=0.0), n, signed)

    def share(self, score: float | None) -> float:
        """|score| as a share of the largest, 0 to 1."""
        return 0.0 if score is None or self.most == 0 else min(abs(score) / self.most, 1.0)

    def lean(self, score: float | None) -> float | None:
        """The score as a share of the largest, -1 to 1; None without a score or a sign."""
        if score is None or not self.signed:
            return None
        return math.copysign(self.share(score), score)

    def colour(self, score: float | None) -> str:
        lean = self.lean(score)
        if lean is not None:
            return colour(lean)
        return PLAIN if score is None else SIZE

    def width(self, score: float | None) -> float:
        """In points; a straight line through the scores."""
        low, high = _WIDTHS
        if score is None:
            return 1.0 if self.most == 0 else low
        return low + (high - low) * self.share(score)

    def opacity(self, score: float | None) -> float:
        """1 for few edges; for many, less the smaller the score."""
        if self.n <= _FEW:
            return 0.95
        faint = max(_LEAST, 0.9 * (_FEW / self.n) ** 0.6)
        if self.most == 0:
            return max(faint, 0.25)
        return faint + (0.95 - faint) * min(1.0, 2 * self.share(score)) ** 0.6


@cache
def colour(share: float) -> str:
    """The diverging map at -1 to 1, without the near-white around zero and the near-black ends."""
    import matplotlib
    from matplotlib.colors import to_hex

    from interp.figures.style import DIVERGING

    strength = 0.38 + 0.5 * min(abs(share), 1.0)
    return to_hex(matplotlib.colormaps[DIVERGING](0.5 + math.copysign(strength / 2, share)))


def role_colours(roles: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A colour for each role, in alphabetical order; those beyond sixteen share a grey."""
    names = sorted({role for node in roles for role in roles[node]})
    return {role: _ROLES[i] if i < len(_ROLES) else OTHER_ROLES for i, role in enumerate(names)}
