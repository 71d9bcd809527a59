"""One progress bar for all long work: on a terminal or in a notebook, never in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")


def track(
    items: Iterable[T], *, total: int, what: str, show: bool | None = None, least: int = 24
) -> Iterator[T]:
    """Yield the items under a bar with the time left.

    Args:
        show: None shows it if a person can see it and there are at least ``least`` items.
    """
    if show is None:
        show = total >= least and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    if not show:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(items, description=what, total=total, console=console, transient=True)
