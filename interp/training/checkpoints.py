"""Checkpoints of a training run: whole or absent, proven when they are read, kept by policy.

A checkpoint of step 1000 is two files of one folder:

- ``step-00001000.safetensors``: every tensor of the run (weights, optimiser, generators), to the bit;
- ``step-00001000.json``: what is no tensor, what the run is (its *identity*), and the size and sha256
  of the first file, signed with the sha256 of its own content.

The tensors come first and the JSON, which makes them a checkpoint, last; each is written beside its
place, forced to the disk and renamed (:mod:`interp.store.files`). While both are written, a temporary
of the JSON stands in the folder. So a reader can tell a save that was killed, which is no
checkpoint and hides nothing, from a file that somebody lost, damaged or swapped, which is refused by
name; then an older checkpoint is offered. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import StoreError, TrainingError
from interp.store.files import (
    listed,
    make_folder,
    remove,
    sync_folder,
    temporary,
    write_new,
)
from interp.store.shard import DTYPES, open_shard, read_header, write_shard
from interp.store.signed import parsed, rendered
from interp.training.disk import telling
from interp.training.identity import as_json, differences
from interp.training.retention import Policy

__all__ = ["Checkpoint", "Checkpoints", "Policy"]

_FORMAT = 1
_FILE = re.compile(r"step-(\d{8}|[1-9]\d{8,})\.(json|safetensors)")
_TEMPORARY = re.compile(rf"\.{_FILE.pattern}\.\d+\.tmp")
_MOST_DIFFERENCES = 8


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """A run after so many steps.

    Attributes:
        step: how many steps were done.
        tensors: on the CPU, contiguous, in memory of their own.
        state: JSON values; what went in as a tuple comes out as a list.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def __repr__(self) -> str:
        size = sum(x.numel() * x.element_size() for x in self.tensors.values())
        return f"Checkpoint(step {self.step}: {len(self.tensors)} tensors, {size / 1e6:.1f} MB)"


class _DamageError(Exception):
    """What is wrong with a file of a checkpoint."""


class Checkpoints:
    """The checkpoints of one run in one folder. One process writes there at a time.

    Args:
        folder: made with the first checkpoint.
        policy: which are written and kept.
        identity: JSON values in which a run must agree with its checkpoint: configuration, data,
            number of processes.

    Raises:
        TrainingError: ``identity`` is not JSON.
    """

    def __init__(self, folder: Path, policy: Policy, identity: Mapping[str, Any]) -> None:
        self.folder, self.policy = Path(folder), policy
        self.identity: dict[str, Any] = as_json(identity, "identity of a checkpoint")

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.folder)!r}: {', '.join(map(str, self.steps())) or 'none'})"

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after so many steps (see :meth:`Policy.due`)."""
        return self.policy.due(step)

    def steps(self) -> list[int]:
        """The steps with both files in place, rising; whether these are whole is not looked at."""
        return [step for step, kinds in self._found().items() if len(kinds) == 2]

    # -- writing -----------------------------------------------------------------------

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of a step; then remove those which the policy does not keep.

        One of the same step is replaced: it is given up before the new one is written. What a save
        that died has left behind is removed first.

        Args:
            tensors: float64, float32, bfloat16, float16, int64, int32, uint8 or bool, on any device.
                Their values are kept to the bit, their strides are not: copy what comes back into
                tensors laid out as before.
            state: JSON values under text keys, without NaN and infinities.

        Returns:
            The file with the tensors.

        Raises:
            TrainingError: it cannot be written (the disk is full); earlier checkpoints are kept. Or
                the state is not JSON, or a tensor is of another type.
        """
        own = {name: x.detach().cpu() for name, x in tensors.items()}
        for name, x in own.items():
            if x.dtype not in DTYPES:
                known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
                raise TrainingError(f"tensor {name!r} is {x.dtype}; a checkpoint holds {known}.")
        content = {
            "step": step,
            "state": as_json(state, "state of a checkpoint"),
            "identity": self.identity,
        }
        record, weights = self._files(step)
        size = sum(x.numel() * x.element_size() for x in own.values())
        with telling(weights, size=size):
            make_folder(self.folder)
            self._tidy()
            temporary(record).touch()  # says that this save was begun
            sync_folder(self.folder)
            try:
                remove([record])
                header = {"format": "pt", "kind": "checkpoint", "step": str(step)}
                size, sha256 = write_shard(weights, own, header=header)
                content["tensors"] = {"bytes": size, "sha256": sha256}
                write_new(record, [rendered(content, _FORMAT)])
            except BaseException:
                remove([weights, temporary(record)])
                raise
            self._prune(step)
        return weights

    def _tidy(self) -> None:
        """Remove what a save that died has left, its temporary last."""
        left = {
            name: match for name in listed(self.folder) if (match := _TEMPORARY.fullmatch(name))
        }
        for match in left.values():
            record, weights = self._files(int(match[1]))
            if match[2] == "json" and not record.exists():
                remove([weights])
        remove(self.folder / name for name in left)

    def _prune(self, step: int) -> None:
        """Remove what is not kept; what lies after ``step`` is not this save's to judge."""
        found = {one: kinds for one, kinds in self._found().items() if one <= step}
        whole = [one for one, kinds in found.items() if len(kinds) == 2]
        self._remove([*self.policy.dropped(whole), *(one for one in found if one not in whole)])

    def _remove(self, steps: list[int]) -> None:
        for step in steps:
            remove(self._files(step))  # the JSON first: without it there is no checkpoint

    # -- reading -----------------------------------------------------------------------

    def newest(self) -> Checkpoint | None:
        """The latest checkpoint, proven; None if there is none.

        A save that was killed does not count.

        Raises:
            TrainingError: a file of it is missing, damaged or swapped (the message names the file
                and the latest older checkpoint that is whole), or it is of another run.
        """
        found = list(self._found())
        return self.at(found[-1]) if found else None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, proven.

        Raises:
            TrainingError: there is none; and as :meth:`newest`.
        """
        found = list(self._found())
        if step not in found:
            raise TrainingError(
                f"{str(self.folder)!r} has no checkpoint of step {step}; "
                f"it has {', '.join(map(str, found)) or 'none'}."
            )
        try:
            content = self._proven(step)
            self._same_run(step, content["identity"])
            views = open_shard(self._files(step)[1])
        except (_DamageError, StoreError) as problem:
            raise TrainingError(f"{problem} {self._offer(step, found)}") from problem
        # Copies lie as torch lays out its own (aligned to 64 bytes), so sums round as they did.
        return Checkpoint(step, {name: x.clone() for name, x in views.items()}, content["state"])

    def _offer(self, step: int, found: list[int]) -> str:
        """What to do instead of a damaged checkpoint."""
        for earlier in reversed([one for one in found if one < step]):
            try:
                content = self._proven(earlier)
            except _DamageError:
                continue
            if not differences(content["identity"], self.identity):
                record, weights = self._files(step)
                return (
                    f"The checkpoint of step {earlier} is whole: delete {record.name} and "
                    f"{weights.name}, and the run goes on from it."
                )
        return "No earlier checkpoint is whole: start anew in another folder."

    def _proven(self, step: int) -> dict[str, Any]:
        """What the JSON of a step says, if it and the tensors' file are what was written."""
        record, weights = self._files(step)
        content = _record(record, step)
        if not weights.is_file():
            raise _DamageError(f"{str(weights)!r} is missing.")
        expected, size = content["tensors"], weights.stat().st_size
        if size != expected["bytes"]:
            kind = "truncated" if size < expected["bytes"] else "too long"
            raise _DamageError(
                f"{str(weights)!r} is {kind}: {size:,} of {expected['bytes']:,} bytes."
            )
        with weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != expected["sha256"]:
            raise _DamageError(f"{str(weights)!r} {_what_it_is(weights, step)}")
        return content

    def _same_run(self, step: int, identity: Mapping[str, Any]) -> None:
        told = differences(identity, self.identity)
        if told:
            more = f"; and {len(told) - _MOST_DIFFERENCES} more" * (len(told) > _MOST_DIFFERENCES)
            raise TrainingError(
                f"the checkpoint of step {step} in {str(self.folder)!r} is of another run: "
                f"{'; '.join(told[:_MOST_DIFFERENCES])}{more}. Resume with what it was begun with, or "
                "give another folder."
            )

    def _files(self, step: int) -> tuple[Path, Path]:
        stem = f"step-{step:08d}"
        return self.folder / f"{stem}.json", self.folder / f"{stem}.safetensors"

    def _found(self) -> dict[int, set[str]]:
        """By rising step which of its files are there, without saves that were killed."""
        names = listed(self.folder) if self.folder.exists() else []
        found: dict[int, set[str]] = {}
        for match in filter(None, map(_FILE.fullmatch, names)):
            found.setdefault(int(match[1]), set()).add(match[2])
        begun = {int(match[1]) for match in map(_TEMPORARY.fullmatch, names) if match}
        return {step: found[step] for step in sorted(found)
                if "json" in found[step] or step not in begun}  # fmt: skip


def _record(path: Path, step: int) -> dict[str, Any]:
    """What a checkpoint's JSON says, if not a byte of it has changed."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise _DamageError(f"{str(path)!r} is missing.") from error
    except OSError as error:
        raise _DamageError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    found = parsed(raw)
    if found is not None and found[1] > _FORMAT:
        raise _DamageError(
            f"{str(path)!r} has format {found[1]}, of a newer version of interp: upgrade it."
        )
    if found is None or raw != rendered(*found):
        raise _DamageError(
            f"{str(path)!r} was edited or damaged: it lacks the sha256 of its content."
        )
    content = found[0]
    if content["step"] != step:
        raise _DamageError(f"{str(path)!r} was swapped: it is of step {content['step']}.")
    return content


def _what_it_is(path: Path, step: int) -> str:
    """What a tensors' file of the right size and another sha256 holds."""
    try:
        own = read_header(path)["__metadata__"].get("step")
    except StoreError:
        own = None
    if own not in (None, str(step)):
        return f"was swapped: it says that it is of step {own}."
    return "was changed or damaged: it has another sha256 than it was written with."
