"""Killed anywhere and started again, a run ends as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
DEATHS = [
    [],
    [{"call": "step", "n": 5}],  # before the first checkpoint
    [{"call": "step", "n": 55}],  # between the two dictionaries of a step
    [{"call": "step", "n": 70}, {"call": "step", "n": 2}],
    [{"call": "write", "n": 3, "when": "half"}],
    [{"call": "replace", "n": 2, "when": "before"}],
    [{"call": "fsync", "n": 4, "when": "before"}, {"call": "replace", "n": 1, "when": "after"}],
]


def contents(folder: Path) -> dict[str, object]:
    """All that a run leaves but its times: weights to the bit, the log without speeds."""
    out: dict[str, object] = {}
    for path in sorted(folder.glob("*/sae_weights.safetensors")):
        out |= {f"{path.parent.name} {n}": t for n, t in load_file(path).items()}
    for path in sorted((folder / "checkpoints").glob("*.safetensors")):
        out |= {f"{path.name} {n}": t for n, t in load_file(path).items()}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line["run"].pop("tokens_per_s")
    return {**out, "log": lines}


def test_a_killed_run_goes_on_to_the_same_bits(store, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.killing", str(store.folder), str(tmp_path)],
        input=json.dumps(DEATHS), capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)
    whole = contents(Path(runs[0]["folder"]))
    assert runs[0]["calls"] == 2 * 40
    assert len(whole) > 30
    for deaths, run in zip(DEATHS[1:], runs[1:], strict=True):
        assert run["codes"] == [-9] * len(deaths) + [0], deaths
        found = contents(Path(run["folder"]))
        assert found.keys() == whole.keys(), deaths
        for name, value in whole.items():
            same = value.equal(found[name]) if hasattr(value, "equal") else value == found[name]
            assert same, (deaths, name)
    assert runs[2]["calls"] < 2 * 40  # it went on, and did not begin anew
