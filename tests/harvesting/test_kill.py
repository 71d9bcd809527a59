"""A harvest that is killed at any moment goes on, to the bytes it would have had."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.small import contents

ROOT = Path(__file__).parents[2]
#: Where writes, fsyncs and renames stand in a harvest of this size (checked below).
LIMITS = {"write": 60, "fsync": 45, "replace": 20, "between": 9}


def deaths(n: int, seed: int) -> list[dict]:
    """Seeded moments: before, amid and after a system call, and between two shards."""
    draw = random.Random(seed)
    out = []
    for i in range(n):
        call = list(LIMITS)[i % len(LIMITS)]
        when = draw.choice(["before", "half", "after"] if call == "write" else ["before", "after"])
        out.append({"call": call, "n": draw.randint(1, LIMITS[call]), "when": when})
    return out


@pytest.mark.parametrize("points", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_any_point_a_harvest_resumes_to_the_same_bytes(tmp_path, points):
    plan = [None, *deaths(points, seed=0)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.harvesting.killing", str(tmp_path)],
        input=json.dumps(plan), capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    first, *others = json.loads(done.stdout)
    assert first["codes"] == [0]
    for call, limit in LIMITS.items():
        assert first["counts"][call] >= limit, f"{call}: deaths beyond the harvest's end"
    whole = contents(Path(first["folder"]))
    assert len(whole) > 9
    partial = 0
    for death, one in zip(plan[1:], others, strict=True):
        assert one["codes"] == [-signal.SIGKILL, 0], death
        assert set(one["state"]["finished"]) <= set(one["state"]["recorded"]), death
        partial += 0 < len(one["state"]["recorded"]) < len(whole) - 1
        assert contents(Path(one["folder"])) == whole, death
    assert partial >= points // 2  # most died amid the work
