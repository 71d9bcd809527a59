"""Corpora in Parquet and Arrow tables and in arrays of token ids, mapped rather than read."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from interp.corpora.corpus import Document
from interp.corpora.records import TOKEN_FIELDS, column_of, document_of
from interp.errors import CorpusError

__all__ = ["array_documents", "array_shape", "table_documents", "table_rows"]

_ROWS = 1024  # rows of a table decoded at a time


# -- arrays of token ids ---------------------------------------------------------------------


def array_documents(path: Path) -> Iterator[Document]:
    """Each row of token ids, as a view of the mapped file."""
    yield from _array(path)


def array_shape(path: Path) -> tuple[int, int]:
    """Rows, and tokens in each."""
    rows, width = _array(path).shape
    return rows, width


def _array(path: Path) -> Integer[np.ndarray, "row pos"]:
    """The token ids of a file; one row stands alone."""
    try:
        read = _npy if path.suffix.lower() == ".npy" else _safetensors
        array = read(path)
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(
            f"cannot read {path} ({error}); expected an array of token ids."
        ) from error
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise CorpusError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}; expected token ids, integers of "
            "shape [row, pos] or [pos]."
        )
    return array[None] if array.ndim == 1 else array


def _npy(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _safetensors(path: Path) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            kinds = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            whole = [key for key, kind in kinds.items() if kind.startswith(("I", "U"))]
            named = [key for key in whole if key in TOKEN_FIELDS]
            if len(named or whole) != 1:
                raise CorpusError(
                    f"{path} holds {', '.join(f'{k} ({v})' for k, v in kinds.items()) or 'nothing'}; "
                    "expected one tensor of integers, or one called 'tokens' or 'input_ids'."
                )
            return file.get_tensor((named or whole)[0])
    except SafetensorError as error:
        raise CorpusError(
            f"cannot read {path} ({error}); expected a complete safetensors file."
        ) from error


# -- tables ----------------------------------------------------------------------------------


def table_rows(path: Path, field: str) -> int:
    """How many rows a table has; its column is looked for at once."""
    schema, rows, _ = _table(path)
    column_of(schema.names, field=field, where=str(path))
    return rows


def table_documents(path: Path, field: str) -> Iterator[Document]:
    """The documents of one column, a few rows at a time."""
    schema, _, batches = _table(path)
    column = column_of(schema.names, field=field, where=str(path))
    row = 0
    for batch in batches(column):
        values = batch.column(batch.schema.names.index(column))
        texts = str(values.type) in ("string", "large_string", "string_view")
        for value in values.to_pylist() if texts else values.to_numpy(zero_copy_only=False):
            yield document_of(value, field=field, where=f"{path}, row {row}")
            row += 1


def _table(path: Path) -> tuple[Any, int, Any]:
    """A table's schema, its number of rows, and what iterates over batches of one column."""
    arrow = import_module("pyarrow")
    try:
        if path.suffix.lower() == ".parquet":
            file = import_module("pyarrow.parquet").ParquetFile(path, memory_map=True)
            return (
                file.schema_arrow,
                file.metadata.num_rows,
                lambda column: file.iter_batches(_ROWS, columns=[column]),
            )
        table = _arrow(arrow, path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise CorpusError(
            f"cannot read {path} ({error}); expected a complete Parquet or Arrow table."
        ) from error
    return (
        table.schema,
        table.num_rows,
        lambda column: table.select([column]).to_batches(max_chunksize=_ROWS),
    )


def _arrow(arrow: Any, path: Path) -> Any:
    """A table in Arrow's file format, or in its stream format, in which `datasets` writes."""
    mapped = arrow.memory_map(str(path))
    try:
        return arrow.ipc.open_file(mapped).read_all()
    except arrow.ArrowInvalid:
        mapped.seek(0)
        return arrow.ipc.open_stream(mapped).read_all()
