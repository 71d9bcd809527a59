"""Stores as SAELens's cached activations: Hugging Face data sets of whole contexts.

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

from interp.errors import StoreError, warn
from interp.progress import Bar
from interp.sites import Site
from interp.store.asking import Sites, site_names
from interp.store.files import make_folder, write_new
from interp.store.rows import Rows
from interp.store.shard import COLUMNS

if TYPE_CHECKING:
    from datasets import Dataset

    from interp.store.store import ActivationStore

__all__ = ["NAMES", "pieces", "to_datasets"]

_PIECE = 2**26  # bytes of activations at a time
_FILE = 2**29  # bytes of activations in one Arrow file
#: What a data set calls a shard's columns.
NAMES = {"tokens": "token_ids", "document": "document", "position": "position"}


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
    if not names:
        raise StoreError("a data set of no site: name one, or leave sites out for all.")
    context = int(store.manifest.layout["context"]) if context is None else context
    n = _whole_contexts(store, context)
    hooks = _hooks(names)
    widths = {name: prod(store.sites[name]) for name in names}
    kind = "float16" if store.dtype is torch.float16 else "float32"
    features = _features({hooks[name]: widths[name] for name in names}, context, kind)
    per_row = context * sum(widths.values()) * (2 if kind == "float16" else 4)
    tables = (
        _table(store.rows(slice(a * context, b * context), sites=names), hooks, context, features)
        for a, b in pieces(n, max(1, _PIECE // per_row))
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
    tracks = {NAMES[n]: Sequence(Value(kind), length=context) for n, kind in kinds.items()}
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
        columns[NAMES[name]] = pa.FixedSizeListArray.from_arrays(values, context)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _steps(n: int, size: int) -> Any:
    import pyarrow as pa

    return pa.array(np.arange(0, (n + 1) * size, size, dtype=np.int32))


def pieces(n: int, size: int) -> Iterator[tuple[int, int]]:
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
