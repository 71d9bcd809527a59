"""Stores from SAELens's cached activations, or any data set of that format.

Each shard is some rows of the data set, so a conversion that was broken off goes on where it stood.
:mod:`interp.store.arrow` describes the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.corpora.packed import Cursor
from interp.errors import InterpError, StoreError
from interp.progress import Bar
from interp.results import versions
from interp.sites import Site
from interp.store.arrow import NAMES, pieces
from interp.store.manifest import Manifest
from interp.store.rows import Rows
from interp.store.writer import Writer

if TYPE_CHECKING:
    from datasets import Dataset

    from interp.store.store import ActivationStore

__all__ = ["from_datasets"]


def from_datasets(
    dataset: Dataset | str | Path,
    out: str | Path,
    *,
    model: Any = None,
    dtype: str | None = None,
    rows_per_shard: int = 2**16,
    progress: bool | None = None,
) -> ActivationStore:
    """A store with the rows of a data set of SAELens's format; resumed where it was broken off.

    Args:
        dataset: the data set, or the folder that it was saved to.
        out: the store's folder.
        model: the model that it was made with. The data set does not say; without it the store is
            of an unknown model, which no other agrees with.
        dtype: of the store; None: the data set's.
        rows_per_shard: about how many rows a shard has; whole contexts.
        progress: show a bar; None: where a person can see it.

    Documents and positions are those of the store that it came from where it has such columns;
    else each row of the data set counts as a document of its own, its first token at position 0.

    Raises:
        StoreError: it is no such data set; ``out`` holds something else.
    """
    from datasets import Dataset, load_from_disk

    from interp.store.store import ActivationStore

    try:
        data = dataset if isinstance(dataset, Dataset) else load_from_disk(str(dataset))
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(dataset)!r} holds no data set: {error}.") from error
    if not isinstance(data, Dataset):
        raise StoreError(f"a {type(data).__name__} with {', '.join(data)}; expected one data set.")
    sites, context, kind = _read_features(data)
    per_shard = max(1, rows_per_shard // context)
    manifest = Manifest(
        model="unknown" if model is None else model.name,
        weights_hash="unknown" if model is None else model.weights_hash,
        sites={site: (width,) for site, (_, width) in sites.items()},
        pairs=(),
        dtype=kind if dtype is None else dtype,
        corpus={"kind": "activations", "fingerprint": data._fingerprint, "rows": len(data)},
        layout={"context": context, "batch": 1, "packing": "given", "bos": None, "special": True,
                "batches_per_shard": per_shard},
        tokens=None,
        seed=0,
        versions=versions(),
    )  # fmt: skip
    shards = list(pieces(len(data), per_shard))
    with Writer.open(out, manifest) as writer, Bar(
        total=len(shards), what="from Arrow", show=progress, least=4
    ) as bar:  # fmt: skip
        for index, (first, last) in enumerate(shards):
            if index not in writer.done:
                rows = _rows(data, first, last, sites, context, getattr(torch, manifest.dtype))
                writer.write(index, rows, end=Cursor(last, 0, ""), forwarded=0)
            bar.advance()
        writer.finish(len(shards))
    return ActivationStore.open(out)


def _read_features(data: Any) -> tuple[dict[str, tuple[str, int]], int, str]:
    """For each site its column and width; the context; the dtype."""
    from datasets import Array2D

    columns = {name: kind for name, kind in data.features.items() if isinstance(kind, Array2D)}
    contexts = {kind.shape[0] for kind in columns.values()}
    kinds = {kind.dtype for kind in columns.values()}
    if len(contexts) != 1 or len(kinds) != 1 or not len(data):
        raise StoreError(
            f"a data set with {len(data)} rows and the columns {dict(data.features)}; expected "
            "SAELens's cached activations: a column Array2D(context, d_in) for each hook, of one "
            "context and dtype, and 'token_ids'."
        )
    sites = {}
    for name, kind in columns.items():
        try:
            sites[str(Site.parse(name))] = (name, int(kind.shape[1]))
        except InterpError as error:
            raise StoreError(f"the column {name!r} is no hook: {error}") from error
    return sites, int(contexts.pop()), str(kinds.pop())


def _rows(
    data: Any,
    first: int,
    last: int,
    sites: Mapping[str, tuple[str, int]],
    context: int,
    dtype: torch.dtype,
) -> Rows:
    """Rows of the store from rows of the data set."""
    table = data.with_format("arrow")[first:last]
    count = (last - first) * context

    def column(name: str, otherwise: Tensor) -> Tensor:
        if NAMES[name] not in table.column_names:
            return otherwise
        return torch.from_numpy(_flat(table.column(NAMES[name])).copy()).to(otherwise.dtype)

    tensors = {
        site: torch.from_numpy(_flat(table.column(name)).copy()).view(count, width).to(dtype)
        for site, (name, width) in sites.items()
    }
    each = torch.arange(count)
    return Rows(
        tensors,
        tokens=column("tokens", torch.full((count,), -1, dtype=torch.int32)),
        document=column("document", first + each // context),
        position=column("position", (each % context).int()),
    )


def _flat(column: Any) -> Any:
    """All numbers of a nested column, one after another."""
    parts = [_numbers(chunk) for chunk in column.chunks]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _numbers(chunk: Any) -> Any:
    import pyarrow as pa

    values = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
    while not pa.types.is_primitive(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False)
