"""Two processes train what one does, each on half of every batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, torch
import interp
torch.set_num_threads(1)
store = interp.ActivationStore.open(sys.argv[1])
interp.train(
    store, out=sys.argv[2], site="L0.mlp", kind="transcoder", d_sae=96, k=4, batch=512,
    tokens=512 * 12, activation=["topk", "batchtopk", "matryoshka"], log_every=5,
    dead_after=1024, auxk=0.1, resample_every=8, progress=False, tensorboard=False,
)
"""


def run(store: Path, out: Path, ranks: int) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    script = out.with_suffix(".py")
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *(launch if ranks > 1 else []), str(script), str(store), str(out)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_two_ranks_equal_one(store, tmp_path):
    run(store.folder, tmp_path / "one", 1)
    run(store.folder, tmp_path / "two", 2)
    folders = sorted((tmp_path / "one").glob("L0*"))
    assert len(folders) == 3
    for folder in folders:
        one, two = (
            load_file(tmp_path / name / folder.name / "sae_weights.safetensors")
            for name in ("one", "two")
        )
        for name, tensor in one.items():
            difference = (tensor - two[name]).norm() / tensor.norm().clamp(min=1e-12)
            assert difference < 1e-3, (folder.name, name)
