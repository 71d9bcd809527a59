"""How the commands print: tables for people, JSON for scripts, one line for an error."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from interp.errors import InterpError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["console", "frame_table", "guarded", "notes", "print_json", "table"]

F = TypeVar("F", bound=Callable[..., Any])

console = Console(markup=False)  # a prompt may hold [/INST]
notes = Console(
    stderr=True, markup=False
)  # what is not the result: errors, and where a figure went

#: Exit codes: 1 for an error that says what to do, 130 for Ctrl-C; typer uses 2 for bad usage.
FAILED, INTERRUPTED = 1, 130


def guarded(command: F) -> F:
    """Turn this package's errors, and the file system's, into one line and an exit code.

    Warnings become a line too, without the line of code that they come from.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warned
                return command(*args, **kwargs)
        except (InterpError, OSError) as error:
            notes.print(f"{type(error).__name__}: ", style="bold red", end="")
            notes.print(str(error), highlight=False, soft_wrap=True)
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            notes.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    return run  # type: ignore[return-value]


def _warned(message: Warning | str, *_: Any, **__: Any) -> None:
    notes.print("warning: ", style="bold yellow", end="")
    notes.print(str(message), highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Plain JSON on standard output, nothing else; what is not a number (nan) is null."""
    typer.echo(json.dumps(_plain(value), indent=2, default=str, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; floats with three decimals, numbers to the right."""
    console.print(f"\n{title}", style="bold", highlight=False)
    out = Table(header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(rows) and isinstance(rows[0][i], int | float)
        out.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        out.add_row(*(_cell(value) for value in row))
    console.print(out)


def frame_table(title: str, frame: DataFrame) -> None:
    """A data frame as a table."""
    table(title, [str(c) for c in frame.columns], list(frame.itertuples(index=False, name=None)))


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
