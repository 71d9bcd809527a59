"""Every error this package raises on purpose.

    InterpError
    ├── SiteError         a site that does not parse, does not exist or is refused
    ├── ModelError        a model that cannot be loaded or fails its self-check
    │   └── CheckpointError   a checkpoint that is missing, corrupted or incomplete
    ├── RunError          a run whose input, edit or size cannot work
    │   └── BudgetError       a run that does not fit in memory
    ├── PromptError       prompts, answers or positions that do not fit together
    ├── CorpusError       a corpus that cannot be read, or is not the one it was
    ├── StoreError        an activation store that is damaged, foreign, busy or out of room
    ├── DictionaryError   an SAE or transcoder whose parts, options or file do not fit
    │   └── TrainingError     a training run that cannot start, go on or be resumed
    ├── MetricError       a metric that cannot be computed for these prompts
    │   └── GapError          clean and corrupted scores too close to normalise by
    ├── GraphError        no such node or edge, or a graph that this model cannot have
    ├── CircuitError      a circuit that does not fit, or a damaged circuit file
    ├── ToyError          a toy model, task or training run that cannot be as asked
    ├── NotebookError     a notebook, claim or claims file that does not fit together
    └── ResultError       a result file that cannot be read or written

Each message says what was given, what was expected and what to try. Catch
``InterpError`` to catch them all; anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "BudgetError",
    "CheckpointError",
    "CircuitError",
    "CorpusError",
    "DictionaryError",
    "GapError",
    "GraphError",
    "InterpError",
    "MetricError",
    "ModelError",
    "NotebookError",
    "PromptError",
    "ResultError",
    "RunError",
    "SiteError",
    "StoreError",
    "ToyError",
    "TrainingError",
    "nearest",
    "warn",
]


class InterpError(Exception):
    """Base of every error raised on purpose by this package."""


class SiteError(InterpError):
    """A site that does not parse, does not exist in this model, or is refused."""


class ModelError(InterpError):
    """A model that cannot be loaded, or that fails its self-check."""


class CheckpointError(ModelError):
    """A checkpoint that is missing, corrupted or incomplete."""


class RunError(InterpError):
    """A run whose input, edit or size cannot work."""


class BudgetError(RunError):
    """A run that does not fit in memory, whatever the batch size."""


class PromptError(InterpError):
    """Prompts, answers or positions that do not fit together."""


class CorpusError(InterpError):
    """A corpus that cannot be read, holds nothing, or is not the one it was."""


class StoreError(InterpError):
    """An activation store that is damaged, foreign, being written, or out of room."""


class DictionaryError(InterpError):
    """A dictionary (SAE, transcoder) whose parts, options or file do not fit together."""


class TrainingError(DictionaryError):
    """A training run that cannot start, cannot go on, or cannot be resumed."""


class GraphError(InterpError):
    """No such node or edge in a model's graph, or a graph that this model cannot have."""


class CircuitError(InterpError):
    """A circuit that does not fit what it is used with, or a damaged circuit file."""


class MetricError(InterpError):
    """A metric that cannot be computed for these prompts."""


class GapError(MetricError):
    """Clean and corrupted scores are too close to normalise by their gap."""


class ToyError(InterpError):
    """A toy model, task or training run that cannot be as asked."""


class NotebookError(InterpError):
    """A notebook, claim or claims file that does not fit together."""


class ResultError(InterpError):
    """A result file that cannot be read or written."""


def nearest(given: str, valid: Iterable[str], *, n: int = 3) -> str:
    """The ``n`` valid names that look most like ``given``, as text for an error.

    >>> nearest("resid_prr", ["resid_pre", "resid_post", "z"], n=1)
    "'resid_pre'"
    """
    names = list(dict.fromkeys(valid))
    close = difflib.get_close_matches(given, names, n=n, cutoff=0.3) or names[:n]
    return ", ".join(repr(name) for name in close)


def warn(text: str) -> None:
    """Warn at the line of the user's own code that led here."""
    inside = str(Path(__file__).parent)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
