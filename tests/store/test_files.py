"""A file is whole or absent: the order of the steps, what is left when one fails, the hash."""

from __future__ import annotations

import errno
import hashlib
import os
import stat

import pytest

from interp.errors import StoreError
from interp.store import files
from interp.store.files import temporaries, write_new


def test_the_bytes_and_their_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 7)
    parts = [b"", b"shard" * 10, memoryview(bytes(range(100))), b"x"]
    content = b"".join(bytes(part) for part in parts)
    size, sha256 = write_new(tmp_path / "a", iter(parts))
    assert (tmp_path / "a").read_bytes() == content
    assert (size, sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_short_writes_are_gone_on_with(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, piece: real(descriptor, piece[:3]))
    size, sha256 = write_new(tmp_path / "a", [b"0123456789"])
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"0123456789"
    assert (size, sha256) == (10, hashlib.sha256(b"0123456789").hexdigest())


def test_content_then_name_then_folder(tmp_path, monkeypatch):
    """Written, forced to the disk, named, and the folder forced: no other order is safe."""
    seen = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)

        def call(first, *rest, name=name, real=real):
            folder = name == "fsync" and stat.S_ISDIR(os.fstat(first).st_mode)
            seen.append("fsync folder" if folder else name)
            return real(first, *rest)

        monkeypatch.setattr(os, name, call)
    write_new(tmp_path / "a", [b"abc"])
    assert seen == ["write", "fsync", "replace", "fsync folder"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step, error):
    write_new(tmp_path / "a", [b"old"])

    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    expected = StoreError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_new(tmp_path / "a", [b"new"])
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_disks_that_cannot_force_a_folder_are_written_all_the_same(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_new(tmp_path / "a", [b"abc"])
    assert (tmp_path / "a").read_bytes() == b"abc"


def test_temporaries_are_told_from_files(tmp_path):
    for name in (".000001.safetensors.812.tmp", ".notes.tmp", "x.812.tmp", ".writer.lock"):
        (tmp_path / name).touch()
    assert [path.name for path in temporaries(tmp_path)] == [".000001.safetensors.812.tmp"]
