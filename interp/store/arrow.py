"""Stores to and from SAELens's cached activations: Hugging Face data sets of whole contexts.

SAELens trains on a data set with one column for each hook, ``Array2D(context, d_in)``, and
``token_ids`` beside it, ``context`` tokens in a row. What lies in one row does not matter to it: it
takes rows apart into tokens and mixes them. So ``context`` neighbouring rows of a store make one row
there, whichever texts they are from, in the order of the store. Two more columns, ``document`` and
``position``, which SAELens does not look at, lead back to the text.

Files are written shard by shard through pyarrow, as the library's own ``save_to_disk`` would leave
them, and never lie in memory whole.

Source: SAELens 6.54, ``cache_activations_runner.py`` (features, ``state.json``) and
``training/activations_store.py`` (``load_cached_activation_dataset``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.corpora.packed import Cursor
from interp.errors import InterpError, StoreError, warn
from interp.progress import Bar
from interp.results import versions
from interp.sites import Site
from interp.store.asking import Sites, site_names
from interp.store.files import make_folder, write_new
from interp.store.manifest import Manifest
from interp.store.rows import Rows
from interp.store.shard import COLUMNS
from interp.store.writer import Writer

if TYPE_CHECKING:
    from datasets import Dataset

    from interp.store.store import ActivationStore

__all__ = ["from_datasets", "to_datasets"]

_PIECE = 2**26  # bytes of activations at a time
_FILE = 2**29  # bytes of activations in one Arrow file
_TOKENS = "token_ids"
_NAMES = {"tokens": _TOKENS, "document": "document", "position": "position"}


def to_datasets(
    store: ActivationStore,
    path: str | Path | None = None,
    *,
    sites: Sites = None,
    context: int | None = None,
    progress: bool | None = None,
) -> Dataset:
    """A store as a data set that SAELens trains on (``use_cached_activations=True``).

    Arrow has no bfloat16: such a store becomes float32, twice its size. Rows of several axes
    (heads) become one, as SAELens has them. Rows at the end that do not fill a context are left
    out, with a warning.

    Args:
        store: what to convert.
        path: a new or empty folder, which ``datasets.load_from_disk`` and SAELens's
            ``cached_activations_path`` take. None: make the data set in memory, all of it.
        sites: some of the store's sites; None: those that it was opened with. The columns have
            TransformerLens's names (``blocks.2.hook_mlp_out``).
        context: rows of the store in one row; None: the context that it was harvested with.
        progress: show a bar; None: where a person can see it.

    Raises:
        StoreError: a site that it does not have, or two with one hook name; fewer rows than one
            context; a folder that holds something, or cannot be written.
    """
    from datasets import DatasetInfo, load_from_disk

    names = site_names(store.folder, store.sites, sites)
    context = int(store.manifest.layout["context"]) if context is None else context
    n = _whole_contexts(store, context)
    hooks = _hooks(names)
    widths = {name: prod(store.sites[name]) for name in names}
    kind = "float16" if store.dtype is torch.float16 else "float32"
    features = _features({hooks[name]: widths[name] for name in names}, context, kind)
    per_row = context * sum(widths.values()) * (2 if kind == "float16" else 4)
    tables = (
        _table(store.rows(slice(a * context, b * context), sites=names), hooks, context, features)
        for a, b in _pieces(n, max(1, _PIECE // per_row))
    )
    if path is None:
        return _in_memory(tables, features)
    folder = _new_folder(Path(path))
    with Bar(total=n, what="to Arrow", show=progress, least=512) as bar:
        files = _write_files(folder, tables, max(1, _FILE // _PIECE), bar)
    DatasetInfo(features=features).write_to_directory(str(folder))
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": store.manifest.id[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_new(folder / "state.json", [json.dumps(state, indent=2).encode()])
    return load_from_disk(str(folder))


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

    data = dataset if isinstance(dataset, Dataset) else load_from_disk(str(dataset))
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
    shards = list(_pieces(len(data), per_shard))
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


def _whole_contexts(store: ActivationStore, context: int) -> int:
    if not isinstance(context, int) or not 1 <= context <= len(store):
        raise StoreError(
            f"context={context!r}: a row of the data set is that many of the store's {len(store)} "
            "rows; expected a whole number from 1 to those."
        )
    if left := len(store) % context:
        warn(
            f"the last {left} of {len(store):,} rows do not fill a context of {context} and are left "
            "out of the data set; context=1 would keep all."
        )
    return len(store) // context


def _hooks(names: tuple[str, ...]) -> dict[str, str]:
    hooks = {name: Site.parse(name).hook_name for name in names}
    for name, hook in hooks.items():
        twins = [other for other in names if hooks[other] == hook]
        if len(twins) > 1:
            raise StoreError(
                f"{' and '.join(twins)} are parts of one tensor, {hook!r}, and SAELens has one column "
                f"for it: convert one at a time, sites=[{name!r}]."
            )
    return hooks


def _features(widths: Mapping[str, int], context: int, kind: str) -> Any:
    from datasets import Array2D, Features, Sequence, Value

    columns = {hook: Array2D((context, width), kind) for hook, width in widths.items()}
    kinds = {name: str(dtype).removeprefix("torch.") for name, dtype in COLUMNS.items()}
    tracks = {_NAMES[n]: Sequence(Value(kind), length=context) for n, kind in kinds.items()}
    return Features({**columns, **tracks})


def _table(rows: Rows, hooks: Mapping[str, str], context: int, features: Any) -> Any:
    """Some rows as an Arrow table; the activations are not copied."""
    import pyarrow as pa

    schema = features.arrow_schema
    n = len(rows) // context
    columns = {}
    for site, hook in hooks.items():
        kind = schema.field(hook).type
        x = rows[site].flatten(1)
        x = x.float() if x.dtype is torch.bfloat16 else x
        inner = pa.ListArray.from_arrays(
            _steps(len(x), x.shape[1]), pa.array(x.reshape(-1).numpy())
        )
        outer = pa.ListArray.from_arrays(_steps(n, context), inner)
        columns[hook] = pa.ExtensionArray.from_storage(kind, outer.cast(kind.storage_type))
    for name in COLUMNS:
        values = pa.array(getattr(rows, name).numpy())
        columns[_NAMES[name]] = pa.FixedSizeListArray.from_arrays(values, context)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _steps(n: int, size: int) -> Any:
    import pyarrow as pa

    return pa.array(np.arange(0, (n + 1) * size, size, dtype=np.int32))


def _pieces(n: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, n)) for start in range(0, n, size))


def _in_memory(tables: Iterator[Any], features: Any) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo

    return Dataset(pa.concat_tables(tables), info=DatasetInfo(features=features))


def _new_folder(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{str(folder)!r} holds something: give a new or empty folder.")
    make_folder(folder)
    return folder


def _write_files(folder: Path, tables: Iterator[Any], per_file: int, bar: Bar) -> list[str]:
    """The tables as Arrow files, several in each; their names."""
    import pyarrow as pa

    names: list[str] = []
    writer = None
    try:
        for i, table in enumerate(tables):
            if i % per_file == 0:
                if writer is not None:
                    writer.close()
                names.append(f"data-{len(names):05d}.arrow")
                writer = pa.ipc.new_stream(str(folder / names[-1]), table.schema)
            assert writer is not None
            writer.write_table(table)
            bar.advance(len(table))
        if writer is not None:
            writer.close()
    except BaseException as error:
        for name in names:  # half a data set would pass for a folder in use
            (folder / name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(f"{str(folder)!r} cannot be written: {error}.") from error
        raise
    final = [f"data-{i:05d}-of-{len(names):05d}.arrow" for i in range(len(names))]
    for name, last in zip(names, final, strict=True):
        os.replace(folder / name, folder / last)  # noqa: PTH105
    return final


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
        if name not in table.column_names:
            return otherwise
        return torch.from_numpy(_flat(table.column(name)).copy()).to(otherwise.dtype)

    tensors = {
        site: torch.from_numpy(_flat(table.column(name)).copy()).view(count, width).to(dtype)
        for site, (name, width) in sites.items()
    }
    each = torch.arange(count)
    return Rows(
        tensors,
        tokens=column(_TOKENS, torch.full((count,), -1, dtype=torch.int32)),
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
