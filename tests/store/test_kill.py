"""Writers are killed at every kind of step; the finished store has the same bytes all the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from interp.store.verify import verify
from tests.store.small import SHARDS, contents, fill

ROOT = Path(__file__).parents[2]

#: What one uninterrupted filling does (the driver counts them too, and a test compares).
TOTALS = {"write": 58, "fsync": 29, "replace": 14, "unlink": 7, "between": 6}


def point(random: random.Random, call: str, when: str = "before") -> dict:
    return {"call": call, "n": random.randint(1, TOTALS[call]), "when": when}


def seeded() -> list[dict]:
    """Ten deaths by seed, and five that the seed might miss: around the manifest's two writings."""
    draw = random.Random(3)
    ten = [
        point(draw, "write"), point(draw, "write", "half"), point(draw, "write", "half"),
        point(draw, "write", "after"), point(draw, "fsync"), point(draw, "fsync", "after"),
        point(draw, "replace"), point(draw, "replace", "after"), point(draw, "between"),
        point(draw, "unlink"),
    ]  # fmt: skip
    last = TOTALS["replace"]
    return [
        *ten,
        {"call": "replace", "n": 1, "when": "before"},  # there is no manifest yet
        {"call": "write", "n": TOTALS["write"] - 1, "when": "half"},
        {"call": "replace", "n": last, "when": "before"},
        {"call": "replace", "n": last, "when": "after"},
        {"call": "unlink", "n": SHARDS, "when": "after"},
    ]


DEATHS = seeded()
CHAINS = [
    [],
    *([death] for death in DEATHS),
    [
        {"call": "write", "n": 17, "when": "half"},
        {"call": "replace", "n": 4, "when": "after"},
        {"call": "fsync", "n": 5, "when": "before"},
    ],
    [{"call": "between", "n": 1, "when": "before"}] * 4,
]


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """What the driver saw, chain by chain."""
    folder = tmp_path_factory.mktemp("killed")
    run = subprocess.run(
        [sys.executable, "-m", "tests.store.killing", str(folder)],
        input=json.dumps({"chains": CHAINS}), capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store that nobody interrupted, made in this process."""
    return contents(fill(tmp_path_factory.mktemp("whole") / "store"))


def test_the_driver_counts_what_the_points_are_drawn_from(driven):
    assert driven[0]["counts"] == TOTALS
    assert len({tuple(d.items()) for d in DEATHS}) == len(DEATHS) == 15


@pytest.mark.parametrize("i", range(len(CHAINS)), ids=lambda i: "+".join(
    f"{d['call']}{d['n']}{d['when']}" for d in CHAINS[i]) or "none")  # fmt: skip
def test_kill_and_resume_give_the_same_bytes(i, driven, whole):
    chain = driven[i]
    assert [death["code"] for death in chain["deaths"]] == [-9] * len(CHAINS[i])
    assert chain["code"] == 0
    assert contents(Path(chain["folder"])) == whole
    assert verify(chain["folder"]).ok


@pytest.mark.parametrize("i", range(1, len(CHAINS)))
def test_kill_loses_the_shard_in_flight_only(i, driven):
    for deaths, death in enumerate(driven[i]["deaths"], 1):
        # The record is in place before write() returns: each death can leave one shard unlogged.
        assert len(set(death["recorded"]) - set(death["finished"])) <= deaths
        assert set(death["finished"]) <= set(death["recorded"])
        kept = {f"{index:06d}.safetensors" for index in death["recorded"]}
        assert {n: death["inodes"][n] for n in kept} == {n: driven[i]["inodes"][n] for n in kept}


@pytest.mark.parametrize("i", range(1, len(CHAINS)))
def test_kill_leaves_no_half_file_under_a_real_name(i, driven):
    for death in driven[i]["deaths"]:
        assert set(death["kinds"]) <= {"left over", "no record"}


def test_kill_left_temporaries_in_some_of_the_chains(driven):
    """Else the points would not have hit a file that was being written."""
    left = [n for chain in driven for death in chain["deaths"] for n in death["files"]]
    assert sum(name.endswith(".tmp") for name in left) >= 4
