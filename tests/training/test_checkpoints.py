"""Checkpoints come back to the bit, outlive a kill at every system call, and refuse every damage."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from interp.errors import TrainingError
from interp.store.signed import rendered
from interp.training.checkpoints import Checkpoints, Policy
from tests.training.saving import IDENTITY, checkpoints, save, tensors

ROOT = Path(__file__).parents[2]

#: System calls of one save that removes an old checkpoint (the driver counts them too).
TOTALS = {"write": 11, "fsync": 6, "replace": 2, "unlink": 3}
DEATHS = [
    {"call": call, "n": n, "when": when}
    for call, total in TOTALS.items()
    for n in range(1, total + 1)
    for when in ("before", "half" if call == "write" else "after")
    if (call, n, when) != ("unlink", 1, "after")  # of a record that is not there: it fails
]

#: From which call on the new checkpoint has its name: (n, whether it was carried out).
NAMED = {"replace": (2, True), "fsync": (6, False), "unlink": (2, False)}


def same(one, two) -> bool:
    """Equal in names, types, shapes and every byte."""
    return list(one) == sorted(two) and all(
        x.dtype == two[name].dtype
        and x.shape == two[name].shape
        and raw(x) == raw(two[name])
        for name, x in one.items()
    )  # fmt: skip


def raw(x: torch.Tensor) -> bytes:
    return x.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.fixture
def run(tmp_path):
    """A run with the checkpoints of steps 100, 200 and 300."""
    for step in (100, 200, 300):
        checkpoints(tmp_path, keep=3).save(step, tensors(step), {"tokens": step})
    return tmp_path


# -- what goes in comes out ------------------------------------------------------------


def test_tensors_and_state_come_back_to_the_bit(tmp_path):
    given = {
        **tensors(7),
        "odd": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "strided": torch.arange(12.0).view(3, 4).T,
        "empty": torch.zeros(0, 3),
        "mask": torch.tensor([True, False]),
    }
    state = {"tokens": 1 << 53, "lr": 0.1 + 0.2, "pcg": 2**127 + 1, "order": (3, 1), "done": None}
    path = checkpoints(tmp_path).save(7, given, state)
    assert path.name == "step-00000007.safetensors"
    back = checkpoints(tmp_path).newest()
    assert back.step == 7
    assert same(back.tensors, given)
    assert back.state == {**state, "order": [3, 1]}
    assert repr(back).startswith("Checkpoint(step 7: 10 tensors, 0.0")


def test_a_generator_goes_on_where_it_was(tmp_path):
    draw = torch.Generator().manual_seed(3)
    torch.randn(5, generator=draw)
    checkpoints(tmp_path).save(1, {"generator": draw.get_state()}, {})
    resumed = torch.Generator()
    resumed.set_state(checkpoints(tmp_path).newest().tensors["generator"])
    assert torch.equal(torch.randn(9, generator=resumed), torch.randn(9, generator=draw))


def test_what_comes_back_is_memory_of_its_own(run):
    back = checkpoints(run).newest()
    for path in run.iterdir():
        path.unlink()
    back.tensors["enc"] += 1
    assert torch.equal(back.tensors["enc"], tensors(300)["enc"] + 1)
    assert all(x.data_ptr() % 64 == 0 for x in back.tensors.values())


def test_equal_runs_have_equal_files(tmp_path):
    for name in "ab":
        save(tmp_path / name, 100)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_a_save_of_the_same_step_takes_its_place(run):
    checkpoints(run).save(300, tensors(5), {"tokens": 5})
    assert same(checkpoints(run).newest().tensors, tensors(5))


def test_a_new_folder_has_none(tmp_path):
    new = checkpoints(tmp_path / "new")
    assert new.newest() is None
    assert new.steps() == []
    assert not (tmp_path / "new").exists()
    with pytest.raises(TrainingError, match="has no checkpoint of step 5; it has none"):
        new.at(5)


@pytest.mark.bad_input
def test_what_a_checkpoint_cannot_hold_is_refused_by_name(tmp_path):
    own = checkpoints(tmp_path)
    with pytest.raises(
        TrainingError, match=r"tensor 'z' is torch.complex64; a checkpoint holds float32"
    ):
        own.save(1, {"z": torch.zeros(1, dtype=torch.complex64)}, {})
    for state, told in (({1: 2}, "1 is no text"), ({"a": [{2: 0}]}, "2 is no text"),
                        ({"x": float("inf")}, "Out of range"), ({"x": torch.zeros(1)}, "Tensor")):  # fmt: skip
        with pytest.raises(TrainingError, match=f"the state of a checkpoint is JSON.*{told}"):
            own.save(1, {}, state)
    with pytest.raises(TrainingError, match="the identity of a checkpoint is JSON"):
        checkpoints(tmp_path, data={3})
    assert list(tmp_path.iterdir()) == []


# -- killed in the middle --------------------------------------------------------------


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """What the driver left: one save that nobody interrupted, then one for each death."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.training.saving", str(tmp_path_factory.mktemp("killed"))],
        input=json.dumps([None, *DEATHS]), capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_deaths_cover_every_call_of_a_save(driven):
    assert {call: driven[0]["counts"][call] for call in TOTALS} == TOTALS
    assert [one["code"] for one in driven] == [0] + [-9] * len(DEATHS)


@pytest.mark.parametrize(
    "i", range(len(DEATHS)), ids=lambda i: "{call}{n}{when}".format(**DEATHS[i])
)
def test_kill_in_a_save_leaves_a_whole_checkpoint(i, driven):
    folder, death = Path(driven[i + 1]["folder"]), DEATHS[i]
    when = (death["n"], death["when"] == "after")
    step = 300 if when >= NAMED.get(death["call"], (99, True)) else 200
    found = checkpoints(folder).newest()
    assert found.step == step
    assert same(found.tensors, tensors(step))
    assert found.state == {"tokens": 4096 * step, "lr": 0.1 + step}
    save(folder, 300)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"step-00000{n}00.{kind}" for n in (2, 3) for kind in ("json", "safetensors")
    ]
    assert same(checkpoints(folder).newest().tensors, tensors(300))


# -- damage ----------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def edit_state(path: Path) -> None:
    path.write_text(path.read_text().replace('"tokens": 300', '"tokens": 301'))


def from_the_future(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_bytes(
        rendered({k: v for k, v in content.items() if k not in ("sha256", "format")}, 2)
    )


WEIGHTS, RECORD = "step-00000300.safetensors", "step-00000300.json"
DAMAGE = {
    "truncated": (WEIGHTS, lambda p: p.write_bytes(p.read_bytes()[:-9]), "is truncated: 1"),
    "emptied": (WEIGHTS, lambda p: p.write_bytes(b""), "is truncated: 0 of"),
    "longer": (WEIGHTS, lambda p: p.write_bytes(p.read_bytes() + b"\0"), "is too long"),
    "flipped in the header": (WEIGHTS, lambda p: flip(p, 40), "was changed or damaged"),
    "flipped in the length": (WEIGHTS, lambda p: flip(p, 7), "was changed or damaged"),
    "flipped in a tensor": (WEIGHTS, lambda p: flip(p, 9000), "was changed or damaged"),
    "flipped at the end": (WEIGHTS, lambda p: flip(p, -1), "was changed or damaged"),
    "swapped": (WEIGHTS, lambda p: swap(p, p.with_name("step-00000200.safetensors")),
                "was swapped: it says that it is of step 200"),
    "removed": (WEIGHTS, Path.unlink, "is missing"),
    "record removed": (RECORD, Path.unlink, "is missing"),
    "record truncated": (RECORD, lambda p: p.write_bytes(p.read_bytes()[:-30]), "was edited or damaged"),
    "record emptied": (RECORD, lambda p: p.write_bytes(b""), "was edited or damaged"),
    "record spaced": (RECORD, lambda p: p.write_bytes(p.read_bytes() + b"\n"), "was edited or damaged"),
    "state edited": (RECORD, edit_state, "was edited or damaged"),
    "record swapped": (RECORD, lambda p: swap(p, p.with_name("step-00000200.json")),
                       "was swapped: it is of step 200"),
    "of a newer version": (RECORD, from_the_future, "has format 2, of a newer version"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_by_name_and_an_older_one_offered(kind, run):
    name, damage, told = DAMAGE[kind]
    damage(run / name)
    own = checkpoints(run)
    good = 100 if "swapped" in kind else 200
    with pytest.raises(
        TrainingError,
        match=rf"{name}' {told}.*of step {good} is whole: delete {RECORD} and {WEIGHTS}, and the run "
        "goes on from it",
    ):
        own.newest()
    assert same(own.at(good).tensors, tensors(good))
    for file in ("step-00000200", "step-00000300") if good == 100 else ("step-00000300",):
        for suffix in (".json", ".safetensors"):
            (run / f"{file}{suffix}").unlink(missing_ok=True)
    assert same(own.newest().tensors, tensors(good))


@pytest.mark.parametrize("name", [WEIGHTS, RECORD])
def test_no_byte_can_change(name, run):
    """A sample of bytes over the whole file."""
    size = (run / name).stat().st_size
    for at in range(0, size, max(1, size // 60)):
        flip(run / name, at)
        with pytest.raises(TrainingError, match=name):
            checkpoints(run).newest()
        flip(run / name, at)
    assert checkpoints(run).newest().step == 300


def test_where_all_are_damaged_none_is_offered(run):
    for path in run.glob("*.safetensors"):
        flip(path, 900)
    with pytest.raises(
        TrainingError, match="No earlier checkpoint is whole: start anew in another"
    ):
        checkpoints(run).newest()


# -- other runs ------------------------------------------------------------------------


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(run):
    other = checkpoints(run, config={"k": 64, "d_sae": 64}, world_size=2)
    with pytest.raises(TrainingError, match=re.escape(
        "is of another run: config.k: 32 there, 64 here; world_size: null there, 2 here. Resume with"
    )):  # fmt: skip
        other.newest()
    same_values = checkpoints(run, config={"d_sae": 64, "k": 32})
    assert same_values.at(200).step == 200
    many = checkpoints(run, config={str(i): "x" * 200 for i in range(20)})
    with pytest.raises(TrainingError, match="; and 14 more. Resume with") as caught:
        many.newest()
    assert len(str(caught.value)) < 2000


def test_other_files_of_the_folder_are_left_alone(tmp_path):
    others = ["log.jsonl", ".log.jsonl.12.tmp", "step-1.json", "step-000000000001.json", "cfg.json"]
    for name in others:
        (tmp_path / name).write_text("{}")
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    assert checkpoints(tmp_path).steps() == [3, 4]
    assert all((tmp_path / name).exists() for name in others)


# -- which are kept --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (Policy(every=10, keep=2), [80, 90]),
        (Policy(every=10, keep=1), [90]),
        (Policy(every=10, keep=2, milestones=40), [40, 80, 90]),
        (Policy(every=20, keep=1, milestones=30), [30, 60, 90]),
        (Policy(every=None, milestones=30), [30, 60, 90]),
        (Policy(every=None), []),
    ],
)
def test_what_the_policy_keeps(tmp_path, policy, kept):
    own = Checkpoints(tmp_path, policy, IDENTITY)
    for step in range(96):
        if own.due(step):
            own.save(step, {}, {})
            assert own.newest().step == step
    assert own.steps() == kept
    assert repr(own).endswith(f": {', '.join(map(str, kept)) or 'none'})")


def test_a_save_after_going_back_leaves_later_ones_alone(run):
    checkpoints(run, keep=1).save(150, {}, {})
    assert checkpoints(run).steps() == [150, 200, 300]


@pytest.mark.bad_input
@pytest.mark.parametrize("wrong", [{"every": 0}, {"keep": 0}, {"keep": None}, {"milestones": 1.5}])
def test_a_policy_counts_from_one(wrong):
    with pytest.raises(TrainingError, match=r"expected a whole number of \w+ from 1 up"):
        Policy(**wrong)


# -- a disk that refuses ---------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5, 8])
def test_a_full_disk_is_told_and_earlier_ones_are_kept(run, monkeypatch, n):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    real, calls = os.write, []

    def write(descriptor, piece):
        calls.append(1)
        if len(calls) < n:
            return real(descriptor, piece)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(
        TrainingError,
        match=r"could not be written \(it needs 1\d,\d{3} bytes\): the disk is full.*Earlier "
        r"checkpoints are kept. Make room and resume",
    ) as caught:
        checkpoints(run).save(400, tensors(400), {})
    assert isinstance(caught.value.__cause__, OSError)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    save(run, 400)
    assert checkpoints(run).steps() == [300, 400]


def test_ctrl_c_in_a_save_leaves_nothing_behind(run, monkeypatch):
    before = sorted(path.name for path in run.iterdir())

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints(run).save(400, tensors(400), {})
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"could not be written.*Earlier checkpoints are kept"):
        save(tmp_path / "file" / "run", 1)
