"""Which layers, heads or units a site means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from interp.errors import SiteError

__all__ = ["ALL", "Index"]


@dataclass(frozen=True, slots=True)
class Index:
    """Which layers, heads or units: ``5``, ``-1``, ``4-8`` (inclusive), ``1,3`` or ``*``."""

    text: str

    def __post_init__(self) -> None:
        if self.text != "*" and not re.fullmatch(r"-?\d+(-\d+)?(,-?\d+(-\d+)?)*", self.text):
            raise SiteError(
                f"{self.text!r} is not an index: expected a number (5, -1), an inclusive "
                "range (4-8), a list (1,3) or a star (*)."
            )

    @property
    def single(self) -> bool:
        """Whether this is one number, which drops its axis."""
        return re.fullmatch(r"-?\d+", self.text) is not None

    def expand(self, size: int, what: str, whose: str = "model") -> tuple[int, ...]:
        """The numbers meant, each in ``range(size)``, in ascending order of the text.

        Raises:
            SiteError: a number lies outside, or a range runs backwards.
        """
        if self.text == "*":
            return tuple(range(size))
        numbers: list[int] = []
        for part in self.text.split(","):
            match = re.fullmatch(r"(-?\d+)(?:-(\d+))?", part)
            assert match is not None  # __post_init__ has checked the text
            low = int(match[1])
            high = low if match[2] is None else int(match[2])
            for number in (low, high):
                if not -size <= number < size:
                    raise SiteError(
                        f"{what} {number} is out of range: this {whose} has {size} "
                        f"({what} 0 to {size - 1}, or -1 to -{size} from the end)."
                    )
            if high % size < low % size:
                raise SiteError(f"{what} range {part!r} runs backwards: write the lower end first.")
            numbers.extend(range(low % size, high % size + 1))
        return tuple(dict.fromkeys(numbers))


ALL: Final = Index("*")
