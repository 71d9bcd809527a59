"""Save checkpoints in processes that die, as a program of its own: `python -m tests.training.saving`.

For each death that it reads from standard input (none: a save that nobody interrupts) it makes a
folder with the checkpoints of steps 100 and 200, and forks a process that saves step 300.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from torch import Tensor

from interp.store import files
from interp.training.checkpoints import Checkpoints, Policy
from tests.store.killing import in_child, watch

IDENTITY = {"config": {"k": 32, "d_sae": 64}, "data": "synthetic"}


def checkpoints(folder: Path, *, keep: int = 2, **identity) -> Checkpoints:
    return Checkpoints(folder, Policy(every=100, keep=keep), {**IDENTITY, **identity})


def tensors(step: int) -> dict[str, Tensor]:
    """A run's tensors, of several types, which follow from the step."""
    draw = torch.Generator().manual_seed(step)
    return {
        "enc": torch.randn(64, 16, generator=draw),
        "m": torch.randn(64, 16, generator=draw, dtype=torch.float64),
        "half": torch.randn(5, 3, generator=draw).bfloat16(),
        "since": torch.randint(1 << 40, (64,), generator=draw),
        "generator": draw.get_state(),
        "step": torch.tensor(step),
    }


def save(folder: Path, step: int) -> None:
    checkpoints(folder).save(step, tensors(step), {"tokens": 4096 * step, "lr": 0.1 + step})


def main() -> None:
    torch.set_num_threads(1)
    files.PIECE = 4096
    begun, out = Path(sys.argv[1]) / "begun", []
    for step in (100, 200):
        save(begun, step)
    for i, death in enumerate(json.load(sys.stdin)):
        folder, log = Path(sys.argv[1]) / f"run{i}", Path(sys.argv[1]) / f"log{i}"
        shutil.copytree(begun, folder)

        def job(death=death, folder=folder, log=log) -> None:
            counts = watch(log, death)
            save(folder, 300)
            log.write_text(json.dumps(counts))

        code = in_child(job)
        counts = json.loads(log.read_text()) if code == 0 else None
        out.append({"folder": str(folder), "code": code, "counts": counts})
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main()
