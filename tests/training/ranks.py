"""Runs by one process and by two, as a program of its own: `python -m tests.training.ranks STORE FOLDER`.

Ranks are forked (so that torch is imported once) with what torchrun would tell them; they speak by gloo.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import interp
import interp.dictionaries.formats.save
import interp.training.verb  # before any fork, so that no child imports
from interp.training.trainee import Trainee

OPTIONS = {
    "site": "L0.mlp", "kind": "transcoder", "d_sae": 96, "k": 4, "batch": 512, "tokens": 512 * 12,
    "activation": ["topk", "batchtopk", "matryoshka"], "log_every": 5, "dead_after": 1024, "auxk": 0.1,
    "resample_every": 8, "checkpoint_every": 4, "progress": False, "tensorboard": False,
}  # fmt: skip


def forked(ranks: int, job: Callable[[int], None]) -> list[int]:
    """How the ranks ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(
                    {name: str(value) for name, value in told.items()}, RANK=str(rank)
                )
                job(rank)
                code = 0
            except KeyboardInterrupt:
                code = 2
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    torch.set_num_threads(1)
    store, top = interp.ActivationStore.open(sys.argv[1]), Path(sys.argv[2])

    def whole(name: str) -> Callable[[int], None]:
        return lambda rank: interp.train(store, out=top / name, **OPTIONS)

    def stopped(rank: int) -> None:
        """Ctrl-C as torchrun passes it on: every rank gets it twice, at about the same time."""
        real, calls = Trainee.step, 0

        def step(self, *args, **keywords):
            nonlocal calls
            calls += 1
            if calls == 3 * (6 + rank):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return real(self, *args, **keywords)

        Trainee.step = step
        whole("stopped")(rank)

    codes = [forked(1, whole("one")), forked(2, whole("two"))]
    codes += [forked(2, stopped), forked(1, whole("stopped"))]
    sys.stdout.write(repr(codes))


if __name__ == "__main__":
    main()
