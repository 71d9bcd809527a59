"""What every result carries: where it came from, named axes, and a file of its own.

A result is a frozen dataclass. Its tensors and its provenance go into one
safetensors file (the JSON stands in the file's header), written to a temporary
name and renamed, so that a result on disk is whole or absent. Nothing is pickled.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import interp
from interp.errors import ResultError

__all__ = [
    "Axis", "Provenance", "Stored", "cell_labels", "pick", "read_file", "versions", "write_atomically",
    "write_file",
]  # fmt: skip

_PACKAGES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Axis:
    """A named axis of a result and the label of each step along it."""

    name: str
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def cell_labels(axes: Sequence[Axis]) -> dict[str, list[int | str]]:
    """For each axis the label of every cell, cells in row-major order; numbers as numbers."""
    cells = list(itertools.product(*(axis.labels for axis in axes)))
    return {axis.name: [_number(cell[i]) for cell in cells] for i, axis in enumerate(axes)}


def pick(
    axes: Sequence[Axis], labels: Mapping[str, int | str]
) -> tuple[tuple[int | slice, ...], tuple[Axis, ...]]:
    """An index that takes one label of some axes, and the axes that are left.

    Raises:
        ResultError: there is no such axis, or no such label.
    """
    index: list[int | slice] = [slice(None)] * len(axes)
    names = [axis.name for axis in axes]
    for name, label in labels.items():
        if name not in names or str(label) not in axes[names.index(name)].labels:
            have = {axis.name: axis.labels for axis in axes}
            raise ResultError(f"no {name}={label!r} in this result; it has {have}.")
        where = names.index(name)
        index[where] = axes[where].labels.index(str(label))
    return tuple(index), tuple(axis for axis in axes if axis.name not in labels)


def _number(label: str) -> int | str:
    return int(label) if label.lstrip("-").isdigit() else label


@dataclass(frozen=True)
class Provenance:
    """Enough to measure a result again.

    Attributes:
        call: the verb and its arguments, as JSON values.
        model: the name that the model was loaded by.
        weights_hash: sha256 of its weights.
        prompts_hash: sha256 of the tokens, masks, answers and foils.
        seed: the seed behind prompts or sampling; None if nothing was random.
        versions: of Python and of the packages the numbers depend on.
    """

    call: dict[str, Any]
    model: str
    weights_hash: str
    prompts_hash: str | None
    seed: int | None
    versions: dict[str, str]

    @classmethod
    def of(cls, model: Any, prompts: Any = None, *, seed: int | None = None, **call: Any
           ) -> Provenance:  # fmt: skip
        """The provenance of a result measured on ``model`` and ``prompts``."""
        return cls(
            call=call,
            model=model.name,
            weights_hash=model.weights_hash,
            prompts_hash=getattr(prompts, "hash", None),
            seed=getattr(prompts, "seed", None) if seed is None else seed,
            versions=versions(),
        )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    out = {"python": platform.python_version(), "interp": interp.__version__}
    for name in _PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed"
    return out


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a file so that it is whole or absent; folders are made.

    Raises:
        ResultError: the place cannot be written.
    """
    return _replace(path, lambda temporary: temporary.write_bytes(content))


def write_file(path: str | Path, kind: str, tensors: Mapping[str, Tensor], meta: Any) -> Path:
    """Save a result's tensors with its metadata (JSON values, or a dataclass of them)."""
    header = {"kind": kind, "meta": json.dumps(meta, sort_keys=True, default=asdict)}
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return _replace(path, lambda temporary: save_file(own, temporary, metadata=header))


def _replace(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Let ``write`` fill a temporary file, then put it in the place of ``path``."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors would leave it to its owner alone
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise ResultError(
            f"{str(path)!r} cannot be written ({error}): give a file in a folder that can be."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def read_file(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_file` wrote.

    Raises:
        ResultError: no such file, a damaged one, or a result of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ResultError(f"there is no file {str(path)!r}; expected a saved {kind}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors: dict[str, torch.Tensor] = {n: file.get_tensor(n) for n in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise ResultError(
            f"{str(path)!r} cannot be read ({error}): it is damaged or not a saved result."
        ) from error
    if header.get("kind") != kind:
        raise ResultError(
            f"{str(path)!r} holds {header.get('kind', 'no result of this package')!r}, "
            f"expected {kind!r}."
        )
    return tensors, json.loads(header["meta"])


S = TypeVar("S", bound="Stored")


class Stored:
    """A result with a file of its own: a frozen dataclass of tensors and of what JSON can hold.

    That is numbers, text, None, tuples and dicts of those, :class:`Axis` and :class:`Provenance`.
    """

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        meta = {name: value for name, value in vars(self).items() if name not in tensors}
        return write_file(path, type(self).__name__, tensors, meta)

    @classmethod
    def load(cls: type[S], path: str | Path) -> S:
        """Read a saved result.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
        """
        tensors, meta = read_file(path, cls.__name__)
        absent = {field.name: None for field in fields(cls) if field.default is MISSING}  # type: ignore[arg-type]
        plain = {name: _restored(value) for name, value in meta.items()}
        plain["provenance"] = Provenance(**meta["provenance"])
        return cls(**{**absent, **plain, **tensors})


def _restored(value: Any) -> Any:
    """JSON's lists as the tuples they were, and axes as axes."""
    if isinstance(value, list):
        return tuple(_restored(one) for one in value)
    if isinstance(value, dict) and value.keys() == {"name", "labels"}:
        return Axis(value["name"], tuple(value["labels"]))
    return value
