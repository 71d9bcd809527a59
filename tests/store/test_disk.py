"""A disk that is full: what is told, what is kept, and resuming after room was made."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interp.errors import StoreError
from interp.store.manifest import read_records
from interp.store.verify import verify
from interp.store.writer import Writer
from tests.store.small import add, contents, fill, plan, rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of the store that had room enough."""
    return contents(fill(tmp_path_factory.mktemp("whole") / "store"))


@pytest.fixture
def refusing(monkeypatch):
    """Let os.write answer an error from its n-th call on, after half of what it was given."""
    real = os.write

    def refuse(code: int, n: int) -> None:
        calls = 0

        def write(descriptor, piece):
            nonlocal calls
            calls += 1
            if calls < n:
                return real(descriptor, piece)
            if calls == n and len(piece) > 1:
                return real(descriptor, piece[: len(piece) // 2])
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "write", write)

    yield refuse
    monkeypatch.undo()


FULL = r"disk is full \([\d,]+ bytes free\).*Make room and run the same call again"


@pytest.mark.parametrize(
    ("code", "n", "shards", "told"),
    [
        (errno.ENOSPC, 1, 0, FULL),  # the manifest
        (errno.ENOSPC, 9, 0, FULL),  # the first record
        (errno.ENOSPC, 12, 1, FULL),  # the second shard
        (errno.ENOSPC, 45, 6, FULL),  # the manifest at the end
        (errno.EDQUOT, 12, 1, "quota is used up.*Make room"),
        (errno.EFBIG, 12, 1, "larger than is allowed"),
        (errno.EIO, 12, 1, "could not be written.*error"),
    ],
)
def test_a_refused_write_is_told_and_the_store_resumes(
    tmp_path, refusing, monkeypatch, whole, code, n, shards, told
):
    refusing(code, n)
    with pytest.raises(StoreError, match=told) as caught:
        fill(tmp_path / "store")
    assert isinstance(caught.value.__cause__, OSError)
    assert "Finished shards are kept" in str(caught.value)
    monkeypatch.undo()
    left = contents(tmp_path / "store")
    assert not [name for name in left if name.startswith(".")]
    kept = {name: content for name, content in left.items() if name.endswith(".safetensors")}
    assert kept == {name: whole[name] for name in kept}
    assert len(kept) == shards
    if n > 1:
        assert verify(tmp_path / "store").ok
        assert len(read_records(tmp_path / "store")) == shards
    assert contents(fill(tmp_path / "store")) == whole


def test_a_refusal_says_how_much_is_needed(tmp_path, refusing):
    manifest = plan(tokens=1000)
    with Writer.open(tmp_path / "store", manifest) as writer:
        add(writer, 0)
        refusing(errno.ENOSPC, 1)
        with pytest.raises(
            StoreError, match=rf"needs [\d,]+ bytes.*takes about {980 * manifest.row_bytes:,}"
        ):
            add(writer, 1)
    assert manifest.row_bytes == (48 + 16) * 2 + 16
    assert rows(0).document.shape == (20,)


def test_a_folder_that_may_not_be_written(tmp_path):
    if os.geteuid() == 0:
        place = Path("/proc/store")  # nobody makes folders there, not even root
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        place = tmp_path / "closed" / "store"
    with pytest.raises(StoreError, match="could not be written"):
        Writer.open(place, plan())


def test_a_real_disk_runs_full(tmp_path, whole):
    """On a tmpfs of its own, where this system lets a test mount one."""
    mount = "mount -t tmpfs -o size=512k none"
    for unshare in (["unshare", "-m"], ["unshare", "-Urm"]):
        trial = [*unshare, "sh", "-c", f"{mount} {tmp_path}"]
        if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("mounting a tmpfs is not permitted here")
    command = f"{mount} {tmp_path} && {sys.executable} -m tests.store.killing full-disk {tmp_path}"
    run = subprocess.run(
        [*unshare, "sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert "the disk is full" in seen["told"]
    assert 0 < len(seen["before"]["recorded"]) < 6
    assert seen["before"]["kinds"] == []
    assert {name: bytes.fromhex(content) for name, content in seen["after"].items()} == whole
