"""Memory stays bounded: a harvest of 20 times as many tokens needs no more of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys, resource, torch
import interp
torch.set_num_threads(1)
model = interp.load("demo", check=False)
interp.harvest(model, "demo", ["L1.mlp", "L2.mlp"], sys.argv[1] + "/warm", tokens=4000, batch=8, shard_mib=4, progress=False)
store = interp.harvest(
    model, "demo", ["L1.mlp", "L2.mlp"], sys.argv[1] + "/s", tokens=int(sys.argv[2]), batch=8, shard_mib=4, progress=False
)
print(json.dumps([len(store), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def peak(folder: Path, tokens: int) -> int:
    """Bytes of memory that a harvest of so many tokens held at most."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tokens)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    rows, most = json.loads(done.stdout)
    assert rows == tokens
    return most


def test_harvesting_20_times_more_tokens_takes_no_more_memory(tmp_path):
    some, many = peak(tmp_path / "some", 1_500), peak(tmp_path / "many", 30_000)
    assert many <= 1.1 * some
