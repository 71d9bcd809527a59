"""What a run is, as JSON: kept beside its checkpoints and compared before it is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from interp.errors import TrainingError
from interp.store.signed import plain

__all__ = ["as_json", "differences"]


def as_json(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A value as JSON gives it back.

    Raises:
        TrainingError: JSON would not give back what went in.
    """
    try:
        _check_keys(value)
        return json.loads(plain(value))
    except (ValueError, TypeError) as error:
        raise TrainingError(
            f"the {what} is JSON (text keys; finite numbers; tensors go beside it): {error}."
        ) from error


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """How two JSON values differ, name by name; what is absent counts as null.

    >>> differences({"k": 32, "data": {"seed": 0}}, {"k": 64, "data": {"seed": 0}})
    ['k: 32 there, 64 here']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        return [line for key in sorted({*there, *here})
                for line in differences(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))]  # fmt: skip
    if plain(there) == plain(here):
        return []
    if isinstance(there, dict) and here is None:
        return [f"{name}: only there"]
    if isinstance(here, dict) and there is None:
        return [f"{name}: only here"]
    return [f"{name}: {_short(there)} there, {_short(here)} here"]


def _check_keys(value: Any) -> None:
    """JSON would turn other keys into text without a word."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{key!r} is no text")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


def _short(value: Any, most: int = 80) -> str:
    text = plain(value)
    return text if len(text) <= most else text[: most - 1] + "…"
