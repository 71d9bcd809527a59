"""Several processes harvest one store: the same rows, shared work, and a death that costs little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import interp
from interp.errors import StoreError
from interp.harvesting import verb
from interp.harvesting.plan import Asked
from interp.harvesting.ranks import Ranks
from interp.harvesting.wanted import wanted
from tests.store.small import contents

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "harvest", "demo", "L1.mlp", "L2.z", "--corpus", "demo", "--tokens", "12000", "--batch", "4",
    "--shard-mib", "1", "--store-dtype", "float32",
]  # fmt: skip


def harvest(
    out: Path, *, ranks: int, program: list[str] | None = None
) -> subprocess.CompletedProcess:
    """The command, alone or under torchrun."""
    run = program or ["-m", "interp"]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.run(
        [sys.executable, *(launch if ranks > 1 else []), *run, *ARGUMENTS, "--out", str(out)],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCHELASTIC_ERROR_FILE": "/dev/null"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks") / "alone"
    done = harvest(out, ranks=1)
    assert done.returncode == 0, done.stderr
    return out


def test_two_ranks_make_the_store_of_one_and_share_its_work(alone, tmp_path):
    done = harvest(tmp_path / "s", ranks=2)
    assert done.returncode == 0, done.stderr
    one, two = interp.ActivationStore.open(alone), interp.ActivationStore.open(tmp_path / "s")
    assert two.verify().ok
    rows = one.rows(slice(None))
    union = two.at(rows.document, rows.position)
    for site in one.sites:
        torch.testing.assert_close(union[site], rows[site], atol=1e-5, rtol=0)
    assert torch.equal(union.tokens, rows.tokens)
    assert contents(tmp_path / "s") == contents(alone)  # the very bytes, on one machine
    ran = [int(n.replace(",", "")) for n in re.findall(r"rank \d ran ([\d,]+)", done.stderr)]
    total = sum(record.forwarded for record in one.manifest.shards)
    assert len(ran) == 2
    assert sum(ran) == total
    assert max(ran) < 0.6 * total


DYING = """
import os, signal, sys
from interp.store.writer import Writer
from interp.cli import main
real, calls = Writer.write, 0
def write(self, *args, **options):
    global calls
    calls += 1
    if os.environ["RANK"] == "1" and calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *args, **options)
Writer.write = write
main()
"""


def test_a_rank_that_dies_leaves_a_store_that_resumes(alone, tmp_path):
    program = tmp_path / "dying.py"
    program.write_text(DYING)
    out = tmp_path / "s"
    died = harvest(out, ranks=2, program=[str(program)])
    assert died.returncode != 0
    left = interp.ActivationStore.open(out)
    assert not left.complete
    assert len(left) > 0
    again = harvest(out, ranks=1)
    assert again.returncode == 0, again.stderr
    assert "going on after" in again.stderr
    assert contents(out) == contents(alone)


@pytest.mark.slow
def test_the_other_ranks_stop_when_the_lead_is_refused(alone, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = harvest(tmp_path, ranks=2)
    assert done.returncode != 0
    assert "is no store" in done.stderr
    assert "rank 0 could not open the store" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_a_rank_that_is_asked_for_another_harvest_says_so(tmp_path, monkeypatch):
    """Each rank is given its own options: those of the lead are written before the others compare."""
    model, corpus = interp.load("demo"), interp.corpora.demo(4, seed=1)

    def begin(ranks, **options):
        asked = Asked(**{**OPTIONS, **options})
        places = wanted(model, "L1.mlp_out")
        with ExitStack() as stack:
            return verb._begun(stack, ranks, model, corpus, places, asked, tmp_path / "s", True)[0]

    monkeypatch.setattr(Ranks, "follow", lambda self, failed=False: None)
    lead = begin(Ranks(0, 2))
    assert begin(Ranks(1, 2)).manifest == lead.manifest
    with pytest.raises(StoreError, match="rank 1 was asked for another harvest: dtype: the store"):
        begin(Ranks(1, 2), dtype="bfloat16")


OPTIONS = {
    "dtype": "float32", "context": 32, "tokens": None, "batch": "auto", "seed": 0, "packing": "auto",
    "bos": None, "special": False, "shard_mib": None,
}  # fmt: skip


def test_one_process_is_rank_0_of_1():
    assert Ranks.current() == Ranks(0, 1)
    assert [Ranks(1, 3).mine(i) for i in range(6)] == [False, True, False, False, True, False]
    assert Ranks().gather(7) == [7]
