"""One shard: some rows of activations in a safetensors file that is always the same bytes.

The safetensors library orders the entries of its header differently from run to run, so the file is
written here: eight bytes with the header's length, the header (JSON, keys sorted, padded to eight
bytes), then the tensors' raw little-endian bytes, straight from memory. Wide types come first, so
that each tensor lies aligned. It is read by the library, through a memory map.

Source: the format's description, github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import StoreError
from interp.store.files import write_new

__all__ = ["COLUMNS", "DTYPES", "open_shard", "read_header", "write_shard"]

#: What a shard holds beside its sites: for each row its token id, its document and its place there.
COLUMNS: Mapping[str, torch.dtype] = {
    "tokens": torch.int32,
    "document": torch.int64,
    "position": torch.int32,
}

#: What can be written, as safetensors names it: a store's dtypes, its columns', and a checkpoint's.
DTYPES: Mapping[torch.dtype, str] = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_LONGEST_HEADER = 100_000_000  # the library's own limit


def write_shard(
    path: Path, tensors: Mapping[str, Tensor], *, header: Mapping[str, str]
) -> tuple[int, str]:
    """Write tensors as one safetensors file, whole or not at all.

    Args:
        tensors: on the CPU, of the types in :data:`DTYPES`; contiguous ones are not copied.
        header: text that stands in the file's ``__metadata__``.

    Returns:
        The file's size in bytes, and its sha256. Both depend on the arguments' values only.

    Raises:
        StoreError: it cannot be written (see :func:`interp.store.files.write_new`).
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": dict(header)}
    end = 0
    for name in names:
        x = tensors[name]
        start, end = end, end + x.numel() * x.element_size()
        entries[name] = {
            "dtype": DTYPES[x.dtype],
            "shape": list(x.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return write_new(
        path, [len(text).to_bytes(8, "little"), text, *(_raw(tensors[name]) for name in names)]
    )


def open_shard(path: Path) -> dict[str, Tensor]:
    """A shard's tensors by name, as views of a memory map: a page is read when it is touched.

    The map is private: writing to a tensor changes neither the file nor what others read.

    Raises:
        StoreError: there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"shard {str(path)!r} cannot be read ({error}): it is missing or damaged. "
            "`interp store verify` names every damaged file of a store."
        ) from error


def read_header(path: Path) -> dict[str, Any]:
    """A shard's header alone: an entry for each tensor, and ``__metadata__``.

    Raises:
        StoreError: it cannot be read, or is no header.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(length)) if length <= _LONGEST_HEADER else None
    except (OSError, ValueError) as error:
        raise StoreError(f"the header of {str(path)!r} cannot be read ({error}).") from error
    if not isinstance(entries, dict) or not isinstance(entries.get("__metadata__"), dict):
        raise StoreError(f"{str(path)!r} does not begin with a shard's header.")
    return entries


def _raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes, not copied if they lie in one piece."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data
