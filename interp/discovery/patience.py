"""Telling beforehand that a search will take long."""

from __future__ import annotations

import time
from typing import Final

from interp.progress import announce

__all__ = ["Patience"]

_LONG: Final = 60.0  # seconds
_ENOUGH: Final = 4  # rounds before the rest can be told from them


class Patience:
    """Says once, after a few rounds, how long the rest will take, if that is long.

    Args:
        what: the search, for the message.
        quiet: say nothing.
    """

    def __init__(self, what: str, *, quiet: bool) -> None:
        self._what, self._told = what, quiet
        self._begun, self._rounds = time.perf_counter(), 0

    def spent(self, done: int, left: int) -> None:
        """A round is over: so much was done since the start, so much is left."""
        self._rounds += 1
        if self._told or self._rounds < _ENOUGH or not done:
            return
        self._told = True
        seconds = (time.perf_counter() - self._begun) * left / done
        if seconds > _LONG:
            announce(f"{self._what}: about {seconds / 60:.0f} minutes; Ctrl-C keeps what is done")
