"""Harvests that die, as a program of its own: `python -m tests.harvesting.killing FOLDER`.

It reads deaths from standard input, forks a process for each and one more that resumes (so that torch
is imported once), and writes how they ended as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import interp
from interp.store import files
from tests.store.killing import in_child, seen, watch


def harvesting(model: interp.Model, folder: Path, log: Path, death: dict | None) -> Callable:
    def job() -> None:
        counts = watch(log, death)
        interp.harvest(
            model, interp.corpora.demo(16, seed=5), ["L1.mlp"], folder,
            batch=2, shard_mib=0.2, dtype="bfloat16", progress=False,
        )  # fmt: skip
        log.with_suffix(".counts").write_text(json.dumps(counts))

    return job


def main() -> None:
    torch.set_num_threads(1)
    files.PIECE = 100_000
    model, top, out = interp.load("demo"), Path(sys.argv[1]), []
    for i, death in enumerate(json.load(sys.stdin)):
        folder, log = top / f"store{i}", top / f"log{i}"
        codes = [in_child(harvesting(model, folder, log, death))] if death else []
        state = seen(folder, log)
        codes.append(in_child(harvesting(model, folder, log, None)))
        counts = json.loads(log.with_suffix(".counts").read_text())
        out.append({"folder": str(folder), "codes": codes, "state": state, "counts": counts})
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main()
