"""One document out of whatever holds it: a text, token ids, or a record with either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from interp.corpora.corpus import Document
from interp.errors import CorpusError

__all__ = ["FIELD", "column_of", "document_of"]

#: The field that holds a record's text.
FIELD = "text"
#: Fields that hold token ids, looked for where there is no ``text``.
TOKEN_FIELDS = ("tokens", "input_ids")


def document_of(value: Any, *, field: str, where: str) -> Document:
    """A text, a row of token ids, or what a record has of either.

    Args:
        value: what is given.
        field: the field of a record that holds the document.
        where: what to call it in an error, as ``"corpus.jsonl, line 3"``.

    Raises:
        CorpusError: neither text nor token ids.
    """
    if isinstance(value, Mapping):
        value = value[column_of(value, field=field, where=where)]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    elif hasattr(value, "as_py"):  # a scalar of Arrow's, whose text is bytes to NumPy
        return document_of(value.as_py(), field=field, where=where)
    try:
        raw = isinstance(value, bytearray | memoryview)  # text to people, numbers to NumPy
        ids = np.empty((0, 0)) if raw else np.asarray(value)
    except ValueError:  # lists of different lengths
        ids = np.empty((0, 0))
    if ids.ndim != 1 or (ids.dtype.kind not in "iu" and ids.size):
        raise CorpusError(
            f"{where} is {_described(value, ids)}; expected a text, one row of token ids, or a "
            f"record with either."
        )
    return ids if ids.size else np.zeros(0, dtype=np.int64)


def column_of(fields: Iterable[str], *, field: str, where: str) -> str:
    """The field that holds the document: the one asked for, or token ids where there is no text.

    Raises:
        CorpusError: there is none, with those that there are.
    """
    names = list(fields)
    for name in (field, *(TOKEN_FIELDS if field == FIELD else ())):
        if name in names:
            return name
    raise CorpusError(
        f"{where} has the fields {', '.join(map(repr, names)) or '(none)'}, expected {field!r}. Say "
        f"which one holds the text (or the token ids), as field={names[0] if names else 'body'!r}."
    )


def _described(value: Any, ids: np.ndarray) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        kind = type(value).__name__
        return (
            f"a {kind} of shape {list(ids.shape)} and dtype {ids.dtype}"
            if ids.size
            else f"a {kind}"
        )
    return f"{value!r} ({type(value).__name__})" if value is None else f"a {type(value).__name__}"
