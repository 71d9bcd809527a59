"""What a training run says when the disk refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interp.errors import StoreError, TrainingError
from interp.store.files import refused

__all__ = ["telling"]


@contextmanager
def telling(path: Path, *, size: int = 0) -> Iterator[None]:
    """Turn a refusal to write ``size`` bytes at a path into an error that says what to do.

    Raises:
        TrainingError: the system refused.
    """
    try:
        yield
    except (StoreError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise TrainingError(str(error)) from error
        told, remedy = refused(Path(cause.filename or path), cause, size=size)
        raise TrainingError(
            f"{told} Earlier checkpoints are kept. {remedy} and resume: the run goes on from the newest."
        ) from cause
