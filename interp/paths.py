"""Where the data that travels with this package lies.

In a wheel the folder ``data/`` is packed inside the package; in a clone of the repository it
stands beside it. Everything that reads shipped data asks here, and nowhere else.
"""

from __future__ import annotations

from pathlib import Path

from interp.errors import InterpError

__all__ = ["DataNotFoundError", "data_dir"]

PACKAGE = Path(__file__).parent


class DataNotFoundError(InterpError, FileNotFoundError):
    """The folder with the shipped data is not where it should be."""


def data_dir() -> Path:
    """The folder that holds ``prompts/`` and ``models/``.

    Raises:
        DataNotFoundError: neither the package nor its repository holds one.
    """
    places = (PACKAGE / "data", PACKAGE.parent / "data")
    for place in places:
        if (place / "prompts").is_dir():
            return place
    raise DataNotFoundError(
        f"no shipped data: looked for a folder 'prompts' in {places[0]} and {places[1]}. "
        "Reinstall the package, or run from a complete clone of the repository."
    )
