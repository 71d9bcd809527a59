"""Writing a file so that it is whole or absent, whatever happens while it is written.

A power cut, a kill or a full disk may come between any two steps, so the steps stand in the one
order that leaves nothing half done:

1. the bytes go to a temporary name in the same folder,
2. they are forced to the disk (fsync),
3. the file gets its name (rename, which is atomic),
4. the folder that now names it is forced to the disk.

Killed before 3 there is only a temporary, which the next writer removes; after 3 the file is whole.
The bytes are hashed in a second thread while they are written and forced to the disk.

Source: Pillai et al. 2014, "All File Systems Are Not Created Equal", OSDI (why 2 and 4 are needed).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from interp.errors import StoreError

__all__ = [
    "PIECE", "is_temporary", "listed", "make_folder", "refused", "remove", "sync_folder", "telling",
    "temporaries", "temporary", "write_new",
]  # fmt: skip

#: Bytes that are written at a time: large enough to be fast, small enough to be interrupted.
PIECE = 8 << 20

#: What the system answers, what that means, and the remedy.
_REFUSALS = {
    errno.ENOSPC: ("the disk is full", "Make room"),
    errno.EDQUOT: ("your disk quota is used up", "Make room"),
    errno.EFBIG: ("the file would be larger than is allowed here", "Raise that limit"),
    errno.EACCES: ("writing there is not permitted", "Permit it"),
    errno.EPERM: ("writing there is not permitted", "Permit it"),
    errno.EROFS: ("that disk is read-only", "Make it writable"),
}

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def write_new(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write the chunks, one after another, as one file; a file of that name is replaced whole.

    Returns:
        How many bytes were written, and their sha256 in hexadecimal.

    Raises:
        StoreError: the place cannot be written or is full. Nothing of the file is left, and what
            stood under its name before still does.
    """
    parts = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
    size = sum(map(len, parts))
    beside = temporary(path)
    with telling(path, size=size):
        try:
            digest = _write(beside, parts)
            os.replace(beside, path)  # noqa: PTH105
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
    return size, digest


def temporary(path: Path) -> Path:
    """The name under which this process writes a file before it gets its own."""
    return path.parent / f".{path.name}.{os.getpid()}.tmp"


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it.

    Raises:
        StoreError: it cannot be made.
    """
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def remove(paths: Iterable[Path]) -> None:
    """Remove some files; those that are gone already do not matter.

    Raises:
        StoreError: one cannot be removed.
    """
    for path in paths:
        with telling(path):
            path.unlink(missing_ok=True)


@contextmanager
def telling(path: Path, *, size: int = 0) -> Iterator[None]:
    """Turn the system's refusal to write ``size`` bytes to a path into an error that says what to do.

    Raises:
        StoreError: the system refused.
    """
    try:
        yield
    except OSError as error:
        told, remedy = refused(path, error, size=size)
        raise StoreError(
            f"{told} Finished shards are kept. "
            f"{remedy} and run the same call again: it goes on from there."
        ) from error


def refused(path: Path, error: OSError, *, size: int = 0) -> tuple[str, str]:
    """What it means that the system refused to write ``size`` bytes to a path, and the remedy."""
    what, remedy = _REFUSALS.get(error.errno or 0, (error.strerror or str(error), "See to it"))
    if error.errno == errno.ENOSPC:
        what += f" ({shutil.disk_usage(path.parent).free:,} bytes free)"
    needed = f" (it needs {size:,} bytes)" if size else ""
    return f"{str(path)!r} could not be written{needed}: {what}.", remedy


def listed(folder: str | Path) -> list[str]:
    """The names of all that a folder holds, in order.

    Raises:
        StoreError: it is not there, or may not be listed.
    """
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        raise StoreError(
            f"the files of {str(folder)!r} cannot be listed: {error.strerror}."
        ) from error


def temporaries(folder: Path) -> list[Path]:
    """What writers that died have left in a folder."""
    return [folder / name for name in listed(folder) if is_temporary(name)]


def is_temporary(name: str) -> bool:
    """Whether a file of this name was being written."""
    return _TEMPORARY.fullmatch(name) is not None


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks have no such call
            raise
    finally:
        os.close(descriptor)


def _write(path: Path, parts: Sequence[memoryview]) -> str:
    """Write and force to the disk; the sha256."""
    digest = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        with ThreadPoolExecutor(1) as hashing:
            hashed = hashing.map(digest.update, parts)
            for piece in _pieces(parts):
                while piece:
                    piece = piece[os.write(descriptor, piece) :]
            os.fsync(descriptor)
            list(hashed)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _pieces(parts: Sequence[memoryview]) -> Iterator[memoryview]:
    for part in parts:
        for start in range(0, len(part), PIECE):
            yield part[start : start + PIECE]
