"""Fill stores in processes that die, as a program of its own: `python -m tests.store.killing`.

It reads chains of deaths from standard input, forks a process for each death and each resumption
(so that torch is imported once), and writes what it saw after each death as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from interp.errors import StoreError
from interp.store import files
from interp.store.manifest import read_records
from interp.store.verify import verify
from interp.store.writer import Writer
from tests.store.small import contents, fill

CALLS = ("write", "fsync", "replace", "unlink")


def watch(log: Path, death: dict | None) -> dict[str, int]:
    """Count the system calls, and die at the one that ``death`` names."""
    counts = dict.fromkeys((*CALLS, "between"), 0)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watched(name: str, real: Callable) -> Callable:
        def call(*args, **keywords):
            counts[name] += 1
            here = death is not None and (death["call"], death["n"]) == (name, counts[name])
            if here and death["when"] == "half":
                real(args[0], args[1][: len(args[1]) // 2])
            if here and death["when"] != "after":
                die()
            out = real(*args, **keywords)
            if here:
                die()
            return out

        return call

    append = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    real_write, real_add = os.write, Writer.write

    def write_shard(self, index, *args, **keywords):
        record = real_add(self, index, *args, **keywords)
        real_write(append, f"{index}\n".encode())
        counts["between"] += 1
        if death is not None and (death["call"], death["n"]) == ("between", counts["between"]):
            die()
        return record

    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))
    Writer.write = write_shard
    return counts


def in_child(job: Callable[[], None]) -> int:
    """Run a job in a process of its own; how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def filling(folder: Path, log: Path, death: dict | None) -> Callable[[], None]:
    def job() -> None:
        counts = watch(log, death)
        fill(folder)
        log.with_suffix(".counts").write_text(json.dumps(counts))

    return job


def seen(folder: Path, log: Path) -> dict:
    """What a dead writer has left: which shards it had finished, and what stands in the folder."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    begun = "manifest.json" in names
    found = verify(folder).problems if begun else ()
    return {
        "finished": sorted({int(line) for line in log.read_text().split()} if log.exists() else ()),
        "recorded": sorted(read_records(folder)) if begun else [],
        "files": names,
        "kinds": sorted({problem.kind for problem in found}),
        "inodes": {name: (folder / name).stat().st_ino for name in names},
    }


def main() -> None:
    torch.set_num_threads(1)
    files.PIECE = 1024
    out = []
    for i, chain in enumerate(json.load(sys.stdin)["chains"]):
        folder, log = Path(sys.argv[1]) / f"store{i}", Path(sys.argv[1]) / f"log{i}"
        deaths = []
        for death in chain:
            code = in_child(filling(folder, log, death))
            deaths.append({"code": code, **seen(folder, log)})
        code = in_child(filling(folder, log, None))
        counts = json.loads(log.with_suffix(".counts").read_text())
        out.append({"folder": str(folder), "deaths": deaths, "code": code, "counts": counts,
                    "inodes": seen(folder, log)["inodes"]})  # fmt: skip
    sys.stdout.write(json.dumps(out))


def full_disk(mount: Path) -> None:
    """Fill a store on a disk that is nearly full, then make room and resume."""
    ballast, told = mount / "ballast", ""
    room = os.statvfs(mount)
    ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - 24_000))
    try:
        fill(mount / "store")
    except StoreError as error:
        told = str(error)
    before = seen(mount / "store", mount / "no log")
    ballast.unlink()
    fill(mount / "store")
    after = {name: content.hex() for name, content in contents(mount / "store").items()}
    sys.stdout.write(json.dumps({"told": told, "before": before, "after": after}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["full-disk"]:
        full_disk(Path(sys.argv[2]))
    else:
        main()
