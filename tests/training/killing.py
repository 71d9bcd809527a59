"""Training runs that die, as a program of its own: `python -m tests.training.killing STORE FOLDER`.

It reads chains of deaths from standard input, forks a process for each death and one more that goes to
the end (so that torch is imported once), and writes how they ended as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import interp
import interp.dictionaries.formats.save
import interp.training.verb  # before any fork, so that no child imports
from interp.training.trainee import Trainee
from tests.store.killing import in_child, watch

OPTIONS = {
    "site": "L0.mlp", "kind": "transcoder", "activation": ["topk", "matryoshka"], "d_sae": 64, "k": 4,
    "batch": 512, "tokens": 512 * 40, "dead_after": 2048, "resample_every": 15, "log_every": 7,
}  # fmt: skip


def training(
    store: interp.ActivationStore, folder: Path, log: Path, death: dict | None
) -> Callable:
    def job() -> None:
        watch(log, death if death and death["call"] != "step" else None)
        real, calls = Trainee.step, 0

        def step(self, *args, **keywords):
            nonlocal calls
            calls += 1
            if death is not None and (death["call"], death["n"]) == ("step", calls):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *args, **keywords)

        Trainee.step = step
        interp.train(
            store, out=folder, checkpoint_every=10, tensorboard=False, progress=False, **OPTIONS
        )
        log.with_suffix(".calls").write_text(str(calls))

    return job


def main() -> None:
    torch.set_num_threads(1)
    interp.training.verb._SAMPLE = 2048
    store, top, out = interp.ActivationStore.open(sys.argv[1]), Path(sys.argv[2]), []
    for i, chain in enumerate(json.load(sys.stdin)):
        folder, log = top / f"run{i}", top / f"log{i}"
        codes = [in_child(training(store, folder, log, death)) for death in chain]
        codes.append(in_child(training(store, folder, log, None)))
        calls = int(log.with_suffix(".calls").read_text()) if codes[-1] == 0 else None
        out.append({"folder": str(folder), "codes": codes, "calls": calls})
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main()
