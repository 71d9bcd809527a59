"""Two processes train what one does, each on half of every batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


def test_two_ranks_equal_one_and_one_goes_on_where_two_were_stopped(store, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.ranks", str(store.folder), str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[0], [0, 0], [2, 2], [0]], done.stderr
    assert "stopped after step 6 of 12" in done.stderr
    folders = sorted((tmp_path / "one").glob("L0*"))
    assert len(folders) == 3
    for folder in folders:
        one, *others = (
            load_file(tmp_path / name / folder.name / "sae_weights.safetensors")
            for name in ("one", "two", "stopped")
        )
        for other in others:
            for name, tensor in one.items():
                difference = (tensor - other[name]).norm() / tensor.norm().clamp(min=1e-12)
                assert difference < 1e-3, (folder.name, name)
