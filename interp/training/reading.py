"""How the data was read that a dictionary is trained on, under the names that SAELens has for it.

SAELens's tools take these from a dictionary's metadata to feed it with the same kind of text.
"""

from __future__ import annotations

from typing import Any

from interp.harvesting.stream import ActivationStream
from interp.store.store import ActivationStore

__all__ = ["how_read"]


def how_read(data: ActivationStore | ActivationStream) -> dict[str, Any]:
    """``context_size``, ``prepend_bos`` (None if a store does not tell) and whether activations of
    special tokens were left out."""
    packed = data.manifest.layout if isinstance(data, ActivationStore) else vars(data.how)
    return {
        "context_size": int(packed["context"]),
        "prepend_bos": _begins_with_bos(data, packed["bos"], special=packed["special"]),
        "exclude_special_tokens": not packed["special"],
    }


def _begins_with_bos(
    data: ActivationStore | ActivationStream, asked: bool | None, *, special: bool
) -> bool | None:
    if asked is not None:
        return asked
    if isinstance(data, ActivationStream):
        return data.model.tokens.bos_id is not None
    if special or not len(data):
        return None
    return int(data.rows(range(1)).position[0]) > 0  # its BOS stood at 0, and was left out
