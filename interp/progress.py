"""One progress bar for all long work: on a terminal or in a notebook, never in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Bar", "announce", "track"]

T = TypeVar("T")


class Bar:
    """A bar with the time left, moved on by hand.

    Args:
        total: how many items; None if nobody knows.
        show: None shows it if a person can see it and there are at least ``least`` items.
    """

    def __init__(
        self, *, total: int | None, what: str, show: bool | None = None, least: int = 24
    ) -> None:
        if show is None:
            many = total is None or total >= least
            show = many and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._show, self._total, self._what = show, total, what
        self._stack = ExitStack()
        self._progress: Any = None

    def __enter__(self) -> Bar:
        if self._show:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = self._stack.enter_context(
                Progress(
                    *Progress.get_default_columns(), console=Console(stderr=True), transient=True
                )
            )
            self._task = self._progress.add_task(self._what, total=self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def advance(self, n: int = 1, *, what: str | None = None) -> None:
        """Move on by ``n`` items; ``what`` is a new text before the bar."""
        if self._progress is not None:
            self._progress.update(self._task, advance=n, description=what)


def announce(text: str) -> None:
    """A line on standard error: what a long piece of work will take, and what it took."""
    from rich.console import Console

    Console(stderr=True, markup=False).print(text, highlight=False, soft_wrap=True)


def track(
    items: Iterable[T], *, total: int, what: str, show: bool | None = None, least: int = 24
) -> Iterator[T]:
    """Yield the items under a bar (see :class:`Bar`)."""
    with Bar(total=total, what=what, show=show, least=least) as bar:
        for item in items:
            yield item
            bar.advance()
