"""One writer at a time: a file in the store's folder that is locked while somebody writes.

The system drops the lock when its process ends, however it ends, so a killed writer blocks nobody.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from interp.errors import StoreError
from interp.store.files import telling

__all__ = ["LOCK", "acquire", "being_written", "release"]

LOCK = ".writer.lock"
_PATIENCE = 0.2  # seconds: who asks whether somebody writes holds the lock for a moment


def acquire(folder: Path, *, to: str = "harvest") -> FileLock:
    """Lock a folder, now or not at all.

    Args:
        to: what the caller will do in it, and another folder would be given for.

    Raises:
        StoreError: somebody else has it, in this process or another, or it cannot be locked.
    """
    lock = FileLock(folder / LOCK, thread_local=False)
    with telling(folder / LOCK):
        try:
            lock.acquire(timeout=_PATIENCE, poll_interval=0.02)
        except Timeout as error:
            raise StoreError(
                f"another process is writing {str(folder)!r} (or this one, elsewhere). Wait until "
                f"it is done, or {to} into another folder."
            ) from error
    return lock


def release(lock: FileLock) -> None:
    """Release, with the file gone first: filelock sees a file that was unlinked while it was opened."""
    if lock.is_locked:
        with suppress(OSError):  # a system that cannot unlink an open file keeps an empty one
            Path(lock.lock_file).unlink()
        lock.release()


def being_written(folder: str | Path) -> bool:
    """Does a living writer hold this store?"""
    if not (path := Path(folder) / LOCK).exists():
        return False
    try:
        with FileLock(path).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # it may not be opened, so nobody else can say either
        return False
