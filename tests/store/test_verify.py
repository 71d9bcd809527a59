"""Whatever happens to a store is found, and the file is named."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import sys
import threading
from dataclasses import replace

import pytest
from filelock import FileLock

from interp.errors import StoreError
from interp.store import files
from interp.store.manifest import read_manifest, write_manifest, write_record
from interp.store.verify import verify
from interp.store.writer import Writer
from tests.store.reading import table, write
from tests.store.small import SHARDS, add, fill, plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The finished store."""
    return fill(tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture
def store(tmp_path, whole):
    """A copy of it to spoil."""
    return shutil.copytree(whole, tmp_path / "store")


@pytest.fixture
def unfinished(tmp_path):
    """A store of three shards so far, to spoil."""
    with Writer.open(tmp_path / "unfinished", plan()) as writer:
        for index in range(3):
            add(writer, index)
    return tmp_path / "unfinished"


def flip(path, at: int, bit: int = 0) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(raw)


def found(folder) -> list[tuple[str, str]]:
    return [(problem.file, problem.kind) for problem in verify(folder).problems]


def test_nothing_wrong(whole, unfinished):
    for folder, shards, rows, complete in ((whole, 6, 133, True), (unfinished, 3, 69, False)):
        got = verify(folder)
        assert got.ok
        got.raise_if_bad()
        assert (got.shards, got.rows, got.complete) == (shards, rows, complete)
        assert got.bytes == sum(p.stat().st_size for p in folder.glob("*.safetensors"))
        assert str(folder) in repr(got)


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_anywhere_in_a_shard(store, seed, monkeypatch):
    """In the length, in the header, in each tensor: by seed, and the file's first and last byte."""
    monkeypatch.setattr(files, "PIECE", 512)
    draw = random.Random(seed)
    path = store / f"{draw.choice([0, 1, 2, 3, 5]):06d}.safetensors"
    size = path.stat().st_size
    at = {0: 0, 1: size - 1, 2: draw.randrange(8, 300)}.get(seed, draw.randrange(300, size))
    flip(path, at, draw.randrange(8))
    assert [file for file, _ in found(store)] == [path.name]
    with pytest.raises(StoreError, match=path.name):
        verify(store).raise_if_bad()


def test_a_flipped_byte_of_the_data_is_called_damage(store):
    flip(store / "000002.safetensors", 2000)
    (problem,) = verify(store).problems
    assert (problem.file, problem.kind) == ("000002.safetensors", "damaged")
    assert "bytes changed" in str(verify(store))
    assert "run the harvest that made it again" in str(verify(store))


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_anywhere_in_the_manifest(store, seed):
    path = store / "manifest.json"
    draw = random.Random(seed)
    flip(path, draw.randrange(path.stat().st_size), draw.randrange(7))
    assert found(store) == [("manifest.json", "damaged")]


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_anywhere_in_a_record(unfinished, seed):
    path = unfinished / "000001.json"
    draw = random.Random(seed)
    flip(path, draw.randrange(path.stat().st_size), draw.randrange(7))
    assert found(unfinished) == [("000001.json", "damaged")]


def test_truncated_longer_and_deleted_shards(store):
    raw = (store / "000000.safetensors").read_bytes()
    (store / "000000.safetensors").write_bytes(raw[:-1])
    with (store / "000001.safetensors").open("ab") as file:
        file.write(b"\0")
    (store / "000002.safetensors").unlink()
    (store / "000003.safetensors").write_bytes(b"")
    assert found(store) == [
        ("000000.safetensors", "truncated"), ("000001.safetensors", "too long"),
        ("000002.safetensors", "missing"), ("000003.safetensors", "truncated"),
    ]  # fmt: skip


def test_swapped_shards(store):
    (store / "000002.safetensors").rename(store / "x")
    (store / "000005.safetensors").rename(store / "000002.safetensors")
    (store / "x").rename(store / "000005.safetensors")
    first, second = verify(store).problems
    assert (first.file, first.kind) == ("000002.safetensors", "swapped")
    assert first.detail == "it holds the content of 000005.safetensors"
    assert (second.file, second.kind) == ("000005.safetensors", "swapped")


def test_a_shard_of_another_store(store, tmp_path):
    other = fill(tmp_path / "other", manifest=plan(seed=1), seed=1)
    shutil.copy(other / "000001.safetensors", store / "000001.safetensors")
    assert found(store) == [("000001.safetensors", "other store")]


def test_an_edited_manifest(store):
    path = store / "manifest.json"
    path.write_text(path.read_text().replace('"context": 16', '"context": 32'))
    assert found(store) == [("manifest.json", "damaged")]
    path.unlink()
    assert found(store) == [("manifest.json", "missing")]


def test_a_forged_manifest_contradicts_its_shards(store):
    """Signed anew, with other sites: then the plan is not the one that the shards name."""
    manifest = read_manifest(store)
    write_manifest(store, replace(manifest, sites={"L2.z": (8, 6), "L0.mlp.input": (16,)}))
    assert set(found(store)) == {(f"{i:06d}.safetensors", "contradiction") for i in range(SHARDS)}
    write_manifest(store, replace(manifest, shards=(
        replace(manifest.shards[0], rows=19, last_document=3), *manifest.shards[1:])))  # fmt: skip
    details = [problem.detail for problem in verify(store).problems]
    assert [detail.split(" are ")[0] for detail in sorted(details)] == [
        "its documents",
        "its tensors",
    ]


def test_foreign_files(store):
    (store / "notes.txt").write_text("mine")
    (store / "more").mkdir()
    shutil.copy(store / "000001.safetensors", store / "000009.safetensors")
    assert found(store) == [
        ("000009.safetensors", "foreign"),
        ("more", "foreign"),
        ("notes.txt", "foreign"),
    ]


def test_what_dead_writers_leave(unfinished, store):
    for folder in (unfinished, store):
        (folder / ".000003.safetensors.4711.tmp").touch()
        (folder / ".writer.lock").touch()
    (unfinished / "000001.json").unlink()
    assert found(unfinished) == [
        (".000003.safetensors.4711.tmp", "left over"),
        ("000001.safetensors", "no record"),
    ]
    manifest = read_manifest(store)
    write_record(store, manifest.shards[0], store=manifest.id)
    assert found(store) == [
        (".000003.safetensors.4711.tmp", "left over"),
        ("000000.json", "left over"),
    ]


def test_the_writer_at_work_has_left_nothing(tmp_path):
    with Writer.open(tmp_path / "store", plan()) as writer:
        add(writer, 0)
        (tmp_path / "store/.000001.safetensors.4711.tmp").touch()
        assert verify(tmp_path / "store").ok
    assert not verify(tmp_path / "store").ok


def test_verifying_changes_nothing(store):
    before = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
    verify(store, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in store.iterdir()} == before


def test_mending_as_the_message_says(store, whole):
    flip(store / "000002.safetensors", 2000)
    (store / verify(store).problems[0].file).unlink()
    with pytest.warns(UserWarning, match="000002"):
        fill(store)
    assert verify(store).ok
    assert (store / "000002.safetensors").read_bytes() == (
        whole / "000002.safetensors"
    ).read_bytes()


def test_a_flipped_letter_of_the_header_is_damage_and_no_other_store(store):
    raw = (store / "000001.safetensors").read_bytes()
    flip(store / "000001.safetensors", raw.index(read_manifest(store).id.encode()) + 5)
    assert found(store) == [("000001.safetensors", "damaged")]


def test_a_lost_manifest_is_not_mended_by_removing_it(store):
    flip(store / "manifest.json", 100)
    told = repr(verify(store))
    assert "manifest.json: damaged" in told
    assert "harvest anew into another folder" in told
    assert "To mend a store" not in told


def test_the_manifest_of_another_store(store, tmp_path):
    """The shards are all right, so none of them is to be removed."""
    other = fill(tmp_path / "other", manifest=plan(seed=7), seed=7)
    shutil.copy(other / "manifest.json", store / "manifest.json")
    assert found(store) == [("manifest.json", "other store")]
    told = repr(verify(store))
    assert "put their own manifest back" in told
    assert "To mend a store" not in told


def test_a_writer_that_finishes_meanwhile(tmp_path, monkeypatch):
    """What is verified is the finished store, and nothing of what its writer moved is wrong."""
    for moment in ("being_written", "listed", "read_record", "_others"):
        writer = Writer.open(tmp_path / moment, plan())
        for index in range(SHARDS):
            add(writer, index)
        real, calls = getattr(sys.modules["interp.store.verify"], moment), []

        def finishing(*args, writer=writer, real=real, calls=calls, **keywords):
            calls.append(args)
            if len(calls) == 1:
                writer.finish(SHARDS)
                writer.close()
            return real(*args, **keywords)

        with monkeypatch.context() as patched:
            patched.setattr(f"interp.store.verify.{moment}", finishing)
            seen = verify(tmp_path / moment)
        assert seen.ok, seen
        assert (seen.complete, seen.shards) == (True, SHARDS)


def test_asking_who_writes_keeps_no_writer_out(store):
    """Who asks holds the lock for a moment; a writer that comes then waits that long."""
    asking = FileLock(store / ".writer.lock", thread_local=False)
    asking.acquire()
    timer = threading.Timer(0.05, asking.release)
    timer.start()
    Writer.open(store, plan()).close()
    timer.join()


def test_the_work_grows_with_the_shards_and_not_with_their_square(tmp_path, monkeypatch):
    """A store of many shards is told by one id, and each record is unpacked a few times at most."""
    unpacked, real = [], dataclasses.asdict
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    folder = write(tmp_path / "store", table(300), per_shard=1).folder

    def counting(one, **keywords):
        unpacked.append(len(getattr(one, "shards", ())))
        return real(one, **keywords)

    monkeypatch.setattr("interp.store.manifest.asdict", counting)
    assert verify(folder).ok
    assert sum(unpacked) <= 3 * 300


def test_no_folder(tmp_path):
    with pytest.raises(StoreError, match="there is no folder"):
        verify(tmp_path / "nothing")
