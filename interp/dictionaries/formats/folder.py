"""A dictionary's folder: several files which are there together, or not at all.

Every file is written beside its place and flushed to disk; then the weights are renamed, and the
config comes last. A loader recognises a folder by its config, so one whose writing was interrupted is
no dictionary, and never half of an old and half of a new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import DictionaryError

__all__ = ["FILES", "Content", "read_json", "read_tensors", "read_yaml", "take", "write_folder"]

#: What stands in a file: text, or named tensors.
Content = str | Mapping[str, Tensor]

#: Files of any format, which must not outlive the dictionary they belong to.
FILES = (
    "cfg.json", "config.yaml", "sae_weights.safetensors", "sparsity.safetensors", "sae.safetensors",
    "layer_*.safetensors", "W_enc_*.safetensors", "W_dec_*.safetensors",
)  # fmt: skip


def write_folder(
    folder: str | Path, files: Mapping[str, Content], *, config: str, overwrite: bool
) -> Path:
    """Write a dictionary's files, whole or not at all.

    Args:
        folder: made if it is not there.
        files: name → content.
        config: the file by which a loader knows the folder; written last.
        overwrite: take the place of a dictionary that is there. Other files are left alone.

    Raises:
        DictionaryError: the folder holds something and ``overwrite`` is not set, or it cannot be
            written.
    """
    folder = Path(folder)
    try:
        held = sorted(one.name for one in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise DictionaryError(f"{str(folder)!r} is no folder ({error}): give one.") from error
    if held and not overwrite:
        raise DictionaryError(
            f"{str(folder)!r} holds {', '.join(held[:4])}{' ...' if len(held) > 4 else ''}: give an empty "
            "folder, or overwrite=True to replace the dictionary in it (other files are kept)."
        )
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in files}
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(temporary[name], content)
        (folder / config).unlink(missing_ok=True)
        for stale in {one for pattern in FILES for one in folder.glob(pattern)}:
            if stale.name not in files:
                stale.unlink()
        for name in sorted(files, key=lambda name: name == config):
            temporary[name].replace(folder / name)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        raise DictionaryError(
            f"{str(folder)!r} cannot be written ({error}): nothing of the dictionary was left there. "
            "Give a folder on a disk with room."
        ) from error
    finally:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()  # only where nothing came to stand in it
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        DictionaryError: no such file, or it holds something else.
    """
    return _object(path, json.loads, "JSON")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of a file.

    Raises:
        DictionaryError: no such file, or it holds something else.
    """
    import yaml

    return _object(path, yaml.safe_load, "YAML")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        DictionaryError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise DictionaryError(f"there is no file {str(path)!r}: the folder is incomplete.")
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DictionaryError(
            f"{str(path)!r} cannot be read ({error}): it is damaged or no safetensors file."
        ) from error
    return found


def take(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> dict[str, Tensor]:
    """The named tensors of a file, all of them and no others, each of its shape.

    Raises:
        DictionaryError: one is missing, is not known, or has another shape.
    """
    missing, more = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing or more:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"holds {', '.join(more)}, which nothing is known about"] * bool(more)
        raise DictionaryError(
            f"{str(path)!r} {' and '.join(parts)}; expected {', '.join(sorted(shapes))}."
        )
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise DictionaryError(
                f"{name} in {str(path)!r} has the shape {list(tensors[name].shape)}; expected "
                f"{list(shape)} by its config."
            )
    return {name: tensors[name] for name in shapes}


def _object(path: Path, parse: Any, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise DictionaryError(f"there is no file {str(path)!r}: the folder is incomplete.")
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except Exception as error:  # each parser has errors of its own
        raise DictionaryError(f"{str(path)!r} is no {what} ({error}): it is damaged.") from error
    if not isinstance(value, dict):
        raise DictionaryError(
            f"{str(path)!r} holds {type(value).__name__}; expected an object of settings."
        )
    return value


def _write(path: Path, content: Content) -> None:
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        own: dict[str, torch.Tensor] = {
            name: tensor.detach().cpu().contiguous().clone() for name, tensor in content.items()
        }
        path.touch()
        mode = path.stat().st_mode
        save_file(own, path, metadata={"format": "pt"})
        path.chmod(mode)  # safetensors would leave it to its owner alone
    _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
