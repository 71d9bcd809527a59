"""Corpora from Hugging Face ``datasets``: one split, in memory, on disk or streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from interp.corpora.corpus import Corpus, Document
from interp.corpora.records import column_of, document_of

__all__ = ["is_dataset", "read_dataset"]

_ROWS = 1024  # rows decoded at a time


def is_dataset(given: Any) -> bool:
    """Whether this is a split of a data set, streamed or not, without importing ``datasets``."""
    return hasattr(given, "column_names") and hasattr(given, "iter") and hasattr(given, "info")


def read_dataset(dataset: Any, field: str) -> Corpus:
    """The documents of one column of a ``Dataset`` or an ``IterableDataset``.

    Its identity is its fingerprint, which follows every ``map``, ``filter`` and ``shuffle``. A
    streamed data set has none, so there it is the data set's name, configuration and split.

    Raises:
        CorpusError: no such column, with those that there are.
    """
    names = dataset.column_names
    column = None if names is None else column_of(names, field=field, where="the data set")
    fingerprint = getattr(dataset, "_fingerprint", None)
    n = dataset.num_rows if fingerprint is not None else None
    info, split = dataset.info, dataset.split and str(dataset.split)
    title = info.dataset_name or "data set"
    identity = {
        "kind": "dataset",
        "dataset": info.dataset_name,
        "config": info.config_name,
        "split": split,
        "column": column or field,
        "fingerprint": fingerprint,
        "rows": n,
    }

    def documents() -> Iterator[Document]:
        if column is None:  # a stream that does not say what it holds
            values = iter(dataset)
        else:
            batches = dataset.select_columns([column]).iter(batch_size=_ROWS)
            values = (value for batch in batches for value in batch[column])
        for row, value in enumerate(values):
            yield document_of(value, field=field, where=f"row {row} of the data set")

    return Corpus(f"{title}{f' ({split})' if split else ''}", identity, n, documents)
