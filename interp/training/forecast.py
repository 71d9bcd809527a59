"""What a training run will take, told before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from interp.dictionaries.kernels.chunks import chunk_rows
from interp.errors import BudgetError
from interp.runs.memory import as_text, available
from interp.training.trainee import Trainee

__all__ = ["forecast"]

#: A step's time over that of the encoder's product alone, measured in bench/train.py.
_SPARSE, _DENSE = 1.7, 7.0


def forecast(trainees: Sequence[Trainee], *, steps: int, rows: int, reading: float) -> str:
    """Memory and time as a sentence.

    Args:
        steps: to go.
        rows: of a step, on this rank.
        reading: seconds that reading a batch takes.

    Raises:
        BudgetError: a dense step does not fit in memory.
    """
    held = sum(4 * p.nbytes for t in trainees for p in t.parameters.values())
    work = max(_work(t, rows) for t in trainees)
    device = trainees[0].dictionary.device
    if work > available(device):
        raise BudgetError(
            f"a step of {rows:,} rows takes {as_text(work)} beside the weights, and "
            f"{as_text(available(device))} are free: give smaller batches, fewer features, or "
            "kernel='sparse'."
        )
    seconds = steps * (reading + sum(_step_time(t, rows) for t in trainees))
    return (
        f"{steps:,} steps of {rows:,} rows, {as_text(held)} of weights, gradients and moments, "
        f"{as_text(work)} of working memory, about {_time(seconds)}"
    )


def _work(trainee: Trainee, rows: int) -> int:
    """Bytes of a step beside the weights, if every feature is dead (which AuxK would encode by)."""
    config, spec = trainee.config, trainee.dictionary.spec
    parts = len(spec.reads)
    if config.sparse:
        enc = trainee.dictionary.parts[0].enc
        chunk = chunk_rows(enc.new_empty(rows, 0), enc, None) * spec.d_sae
        prefixes = len(config.groups or (0,))
        outputs = (2 * prefixes + 3) * spec.d_out * parts
        each_row = outputs + 2 * spec.d_in * parts + 40 * (config.k or 0) * parts
        return 4 * (rows * each_row + (6 if config.auxk else 1) * chunk)
    whole = config.picks or config.auxk
    at_once = rows if whole else min(rows, max(1, (1 << 22) // spec.d_sae))
    return (8 if config.picks else 12) * 4 * at_once * spec.d_sae * parts


@torch.no_grad()
def _step_time(trainee: Trainee, rows: int) -> float:
    """From the time of a small product by the encoder."""
    enc = trainee.dictionary.parts[0].enc
    few = min(rows, 256)
    x = torch.zeros(few, enc.shape[1], device=enc.device, dtype=enc.dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        product = x @ enc.T
        if product.is_cuda:
            torch.cuda.synchronize(product.device)
        times.append(time.perf_counter() - start)
    factor = _SPARSE if trainee.config.sparse else _DENSE
    return min(times) * rows / few * factor * len(trainee.dictionary.parts)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
