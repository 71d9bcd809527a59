"""The log of a run that was killed and resumed is that of a run that was not."""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import sys
import types
import warnings

import pytest

from interp.errors import TrainingError
from interp.training.logs import LOG, RunLog, read_log

STEPS = (10, 20, 30, 40, 50)


def values(step: int) -> dict[str, dict[str, float]]:
    return {
        "": {"tokens": 4096 * step, "lr": 1e-3 / 3 * step, "tokens_per_s": 1e5 + 1 / step},
        "L0.mlp k32": {"loss": 1 / step, "fvu": 0.9**step, "l0": 32.0},
        "L1.mlp k64": {"loss": 2 / step, "fvu": math.nan if step == 20 else 0.5},
    }


def write(log: RunLog, steps) -> RunLog:
    for step in steps:
        log.write(step, values(step))
    return log


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The log that nobody interrupted."""
    with write(RunLog(tmp_path_factory.mktemp("whole")), STEPS) as log:
        return (log._path.read_bytes(), log.rows)


def test_a_line_is_standard_json_and_is_there_at_once(tmp_path):
    def refuse(name):
        raise AssertionError(name)

    log = write(RunLog(tmp_path), STEPS[:2])
    lines = (tmp_path / LOG).read_text().splitlines()
    row = json.loads(lines[1], parse_constant=refuse)
    assert row == {
        "step": 20,
        "run": values(20)[""],
        "dictionaries": {"L0.mlp k32": values(20)["L0.mlp k32"], "L1.mlp k64": {"loss": 0.1, "fvu": None}},
    }  # fmt: skip
    log.close()
    log.close()
    with pytest.raises(TrainingError, match="step 30 is logged after the log was closed"):
        log.write(30, {})


def test_rows_are_tidy(tmp_path):
    with write(RunLog(tmp_path), STEPS) as log:
        rows = log.rows
    assert len(rows) == 2 * len(STEPS)
    assert rows[0] == {
        "step": 10, "dictionary": "L0.mlp k32", "tokens": 40960, "lr": 1e-3 / 3 * 10,
        "tokens_per_s": 1e5 + 0.1, "loss": 0.1, "fvu": 0.9**10, "l0": 32.0,
    }  # fmt: skip
    assert math.isnan(rows[3]["fvu"])
    assert str(read_log(tmp_path / LOG)) == str(rows)
    assert str(write(RunLog(None), STEPS).rows) == str(rows)


def test_numbers_of_the_run_alone_and_names_in_common():
    log = RunLog(None)
    log.write(1, {"": {"lr": 0.5}})
    log.write(2, {"": {"lr": 0.5}, "a": {"lr": math.inf}})
    assert log.rows[0] == {"step": 1, "dictionary": "", "lr": 0.5}
    assert math.isnan(log.rows[1]["lr"])
    with pytest.raises(TrainingError, match="step 2 is logged after step 2; expected rising steps"):
        log.write(2, {})


@pytest.mark.parametrize("after", [0, 10, 25, 50])
def test_resuming_gives_the_log_of_an_uninterrupted_run(tmp_path, whole, after):
    write(RunLog(tmp_path), STEPS).close()
    with RunLog(tmp_path, resume_step=after) as log:
        assert [row["step"] for row in log.rows[::2]] == [s for s in STEPS if s <= after]
        write(log, [step for step in STEPS if step > after])
    assert (tmp_path / LOG).read_bytes() == whole[0]
    assert str(log.rows) == str(whole[1])


def test_a_torn_last_line_is_cut_off(tmp_path, whole):
    """Wherever the kill fell, also where what is left happens to be JSON."""
    path, content = tmp_path / LOG, whole[0]
    start = content[:-1].rindex(b"\n") + 1
    for end in (start, *range(start + 1, len(content), 7), len(content) - 1):
        path.write_bytes(content[:end])
        assert len(read_log(path)) == 8
        with RunLog(tmp_path, resume_step=45) as log:
            write(log, (50,))
        assert path.read_bytes() == content


def test_a_new_log_takes_the_place_of_an_old_one(tmp_path):
    write(RunLog(tmp_path), STEPS).close()
    with write(RunLog(tmp_path), STEPS[:1]) as log:
        assert len(log.rows) == 2
    assert len(read_log(tmp_path / LOG)) == 2


def test_a_damaged_line_is_named(tmp_path, whole):
    lines = whole[0].split(b"\n")
    for wrong in (
        b'{"step": 20}',
        b"",
        b'{"step": 20, "run": [], "dictionaries": {}}',
        b"\xff",
        b"[]",
    ):
        (tmp_path / LOG).write_bytes(b"\n".join([lines[0], wrong, *lines[2:]]))
        with pytest.raises(TrainingError, match=r"line 2 of '.*log.jsonl' is no logged step"):
            RunLog(tmp_path, resume_step=50)
    with pytest.raises(TrainingError, match=r"the log '.*absent' cannot be read: No such file"):
        read_log(tmp_path / "absent")


def test_a_lost_log_is_said(tmp_path):
    with pytest.warns(UserWarning, match="the numbers of the steps up to 30 are lost"):
        log = RunLog(tmp_path, resume_step=30)
    log.close()


def test_a_full_disk_is_told_and_the_log_goes_on(tmp_path, monkeypatch, whole):
    log = write(RunLog(tmp_path), STEPS[:3])
    real, calls = os.write, []

    def refuse(descriptor, piece):
        calls.append(1)
        if len(calls) == 1:
            return real(descriptor, piece[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(
        TrainingError, match=r"log.jsonl' could not be written: the disk is full.*resume"
    ):
        write(log, (40,))
    monkeypatch.undo()
    log.close()
    with write(RunLog(tmp_path, resume_step=30), STEPS[3:]):
        assert (tmp_path / LOG).read_bytes() == whole[0]


def test_sync_forces_the_lines_to_the_disk(tmp_path, monkeypatch):
    forced = []
    log = write(RunLog(tmp_path), STEPS[:1])
    monkeypatch.setattr(os, "fsync", forced.append)
    log.sync()
    assert forced == [log._file]
    log.close()


# -- TensorBoard and wandb -------------------------------------------------------------


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_sees_each_step_once_after_a_resume(tmp_path):
    write(RunLog(tmp_path, tensorboard=True), STEPS).close()
    with RunLog(tmp_path, tensorboard=True, resume_step=20) as log:
        write(log, STEPS[2:])
        log.sync()
    found = scalars(tmp_path)
    assert set(found) == {
        "run/tokens", "run/lr", "run/tokens_per_s", "loss/L0.mlp k32", "fvu/L0.mlp k32",
        "l0/L0.mlp k32", "loss/L1.mlp k64", "fvu/L1.mlp k64",
    }  # fmt: skip
    assert [step for step, _ in found["run/lr"]] == list(STEPS)
    assert found["loss/L0.mlp k32"] == [(s, pytest.approx(1 / s)) for s in STEPS]
    assert math.isnan(found["fvu/L1.mlp k64"][1][1])


def test_nothing_is_imported_that_was_not_asked_for(tmp_path, monkeypatch):
    for name in ("tensorboard", "torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    write(RunLog(tmp_path), STEPS).close()
    assert [path.name for path in tmp_path.iterdir()] == [LOG]
    with pytest.raises(
        TrainingError, match=r"tensorboard=True: .*`pip install tensorboard`, or leave"
    ):
        RunLog(tmp_path, tensorboard=True)
    with pytest.raises(TrainingError, match=r"wandb='p': .*`pip install wandb`, or leave it out"):
        RunLog(tmp_path, wandb="p")
    with pytest.raises(TrainingError, match="write files: give the run a folder"):
        RunLog(None, tensorboard=True)
    with pytest.raises(TrainingError, match="write files: give the run a folder"):
        RunLog(None, wandb="p")


class Runs(types.ModuleType):
    """A stand-in for wandb that keeps what it is told, and drops steps it has, as wandb does."""

    class errors:  # noqa: N801
        Error = type("Error", (Exception,), {})

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.logged = [], {}

    def init(self, **options):
        if options["project"] == "refused":
            raise self.errors.Error("no key")
        self.begun.append(options)
        own = options["id"] or f"id{len(self.begun)}"
        kept = self.logged.setdefault(own, {})

        def log(row, *, step):
            if not kept or step > max(kept):
                kept[step] = row

        return types.SimpleNamespace(id=own, log=log, finish=lambda: None)


def test_wandb_goes_on_with_its_run(tmp_path, monkeypatch):
    fake = Runs()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    write(RunLog(tmp_path, wandb="p", config={"k": 32}), STEPS[:3]).close()
    write(RunLog(tmp_path, wandb="p", resume_step=20), STEPS[2:]).close()
    assert list(fake.logged) == ["id1"]
    assert list(fake.logged["id1"]) == list(STEPS)
    assert fake.logged["id1"][10]["fvu/L0.mlp k32"] == 0.9**10
    assert fake.begun[0]["config"] == {"k": 32}
    assert fake.begun[0]["dir"] == str(tmp_path)
    write(RunLog(tmp_path, wandb="p"), STEPS).close()
    assert list(fake.logged) == ["id1", "id3"]
    with pytest.raises(TrainingError, match=r"does not start \(no key\). Set WANDB_MODE=offline"):
        RunLog(tmp_path, wandb="refused")


def test_the_real_wandb_heeds_its_mode(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("wandb")
        importlib.import_module("wandb")
        monkeypatch.setenv("WANDB_MODE", "disabled")
        write(RunLog(tmp_path, wandb="p"), STEPS).close()
    assert (tmp_path / "wandb-run-id").read_text().strip()
