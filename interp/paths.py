"""Where the data that travels with this package lies.

In a wheel the folders ``data/`` and ``circuits/`` are packed inside the package; in a clone of the
repository they stand beside it. Everything that reads shipped data asks here, and nowhere else.
"""

from __future__ import annotations

from pathlib import Path

from interp.errors import InterpError

__all__ = ["DataNotFoundError", "circuits_dir", "data_dir"]

PACKAGE = Path(__file__).parent


class DataNotFoundError(InterpError, FileNotFoundError):
    """The folder with the shipped data is not where it should be."""


def data_dir() -> Path:
    """The folder that holds ``prompts/`` and ``models/``.

    Raises:
        DataNotFoundError: neither the package nor its repository holds one.
    """
    return _found("prompts", PACKAGE / "data", PACKAGE.parent / "data")


def circuits_dir() -> Path:
    """The folder that holds the shipped circuits and their ``schema.json``.

    Raises:
        DataNotFoundError: neither the package nor its repository holds one.
    """
    return _found("schema.json", PACKAGE / "data" / "circuits", PACKAGE.parent / "circuits")


def _found(inside: str, *places: Path) -> Path:
    """The first place that holds what must be there."""
    for place in places:
        if (place / inside).exists():
            return place
    raise DataNotFoundError(
        f"no shipped data: looked for {inside!r} in {' and '.join(map(str, places))}. "
        "Reinstall the package, or run from a complete clone of the repository."
    )
