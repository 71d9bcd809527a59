"""Ctrl-C between steps: noted while a step runs, so that none is left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["interrupts"]

_ACTIVE: Final[list[list[int]]] = []


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that is no longer empty after Ctrl-C; a second Ctrl-C is raised at once.

    Where one block stands inside another (a training run in a sweep), all of them are told.
    """
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen  # only the main thread is told of signals
        return

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        for told in _ACTIVE:
            told.append(number)

    before = signal.signal(signal.SIGINT, note)
    _ACTIVE.append(seen)
    try:
        yield seen
    finally:
        _ACTIVE.pop()
        signal.signal(signal.SIGINT, before)
