"""JSON in one fixed form with the sha256 of its own content, so that an edit is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["parsed", "plain", "rendered"]


def plain(content: Any) -> str:
    """A JSON value as text, the same for equal values; lists and tuples are the same.

    Raises:
        ValueError: it holds NaN or an infinity.
        TypeError: it holds what JSON cannot.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def rendered(content: Mapping[str, Any], made: int) -> bytes:
    """The one form in which a content of format ``made`` is written, signed with its sha256."""
    content = {**content, "format": made}
    signed = {**content, "sha256": _sha256(content)}
    return (json.dumps(signed, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def parsed(raw: bytes) -> tuple[dict[str, Any], int] | None:
    """The content that :func:`rendered` signed and its format; None if it was edited or damaged."""
    try:
        content = json.loads(raw)
        intact = content.pop("sha256") == _sha256(content)
        made = content.pop("format")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return (content, made) if intact else None


def _sha256(content: Any) -> str:
    return hashlib.sha256(plain(content).encode()).hexdigest()
