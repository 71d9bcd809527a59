"""The manifest and the records: what they keep, how two plans differ, and that edits are noticed."""

from __future__ import annotations

import json
import os

import pytest

from interp.corpora.packed import Cursor
from interp.errors import StoreError
from interp.store import manifest as module
from interp.store.files import listed
from interp.store.manifest import (
    ShardRecord,
    numbered,
    read_manifest,
    read_record,
    read_records,
    read_state,
    recorded,
    write_manifest,
    write_record,
)
from interp.store.writer import Writer
from tests.store.small import SHARDS, add, plan

RECORD = ShardRecord(3, 20, 4096, "ef" * 32, 30, 32, 64, Cursor(33, 5, "aa"))


def test_a_manifest_is_what_was_written(tmp_path):
    manifest = plan(complete=True, shards=(RECORD,))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert read_records(tmp_path) == {3: RECORD}


def test_the_id_is_that_of_the_plan(tmp_path):
    one = plan()
    assert one.id == plan(complete=True, shards=(RECORD,)).id
    assert one.id == plan(sites=dict(reversed(one.sites.items()))).id
    others = [plan(seed=1), plan(dtype="float32"), plan(tokens=5), plan(versions={})]
    assert len({one.id, *(other.id for other in others)}) == 5
    write_manifest(tmp_path, one)
    assert read_manifest(tmp_path).id == one.id


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights_hash": "00" * 32, "model": "b"}, "weights: the store has synthetic (abababababab), here b (0000"),
        ({"sites": {"L2.z": (6, 8)}}, 'sites: the store has {"L0.mlp.input":[16],"L2.z":[6,8]}, here {"L2.z":[6,8]}'),
        ({"dtype": "float32"}, 'dtype: the store has "bfloat16", here "float32"'),
        ({"corpus": {"kind": "list", "sha256": "x"}}, 'data sha256: the store has "cdcd'),
        ({"corpus": {"kind": "list", "sha256": "cd" * 32, "lines": 2}}, "data lines: the store has null, here 2"),
        ({"layout": {**plan().layout, "context": 32}}, "layout context: the store has 16, here 32"),
        ({"tokens": 7}, "tokens: the store has null, here 7"),
        ({"seed": 9}, "seed: the store has 0, here 9"),
        ({"pairs": ()}, "pairs: the store has"),
    ],
)  # fmt: skip
def test_plans_differ_by_name(change, told):
    (line,) = plan().differences(plan(**change))
    assert told in line


def test_versions_progress_and_names_of_one_model_are_no_difference():
    other = plan(versions={"torch": "9"}, complete=True, shards=(RECORD,), model="elsewhere")
    assert plan().differences(other) == []


def test_unknown_dtypes_are_refused():
    with pytest.raises(StoreError, match=r"one of float32, bfloat16, float16, not 'int8'"):
        plan(dtype="int8")


@pytest.mark.parametrize("edit", [b"  ", b'"seed": 1', b'"seed": 0,\n "note": 2', b"{", b"\xff"])
def test_any_edit_is_noticed(tmp_path, edit):
    write_manifest(tmp_path, plan())
    path = tmp_path / "manifest.json"
    old = path.read_bytes()
    target = b'"seed": 0' if edit.startswith(b'"seed') else b"\n"
    path.write_bytes(old.replace(target, edit, 1))
    assert path.read_bytes() != old
    with pytest.raises(StoreError, match="was edited or damaged"):
        read_manifest(tmp_path)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FORMAT", 2)
    write_manifest(tmp_path, plan())
    monkeypatch.undo()
    with pytest.raises(StoreError, match="has format 2, made by a newer version of interp"):
        read_manifest(tmp_path)


def test_no_byte_can_change(tmp_path):
    write_manifest(tmp_path, plan())
    raw = (tmp_path / "manifest.json").read_bytes()
    for place in range(len(raw)):
        for bit in (1, 128):
            changed = bytes([*raw[:place], raw[place] ^ bit, *raw[place + 1 :]])
            (tmp_path / "manifest.json").write_bytes(changed)
            with pytest.raises(StoreError, match="was edited or damaged"):
                read_manifest(tmp_path)


def test_reading_while_the_writer_finishes(tmp_path, monkeypatch):
    """Between the first look at the manifest and the last record the store becomes complete."""
    real = module.read_record
    for vanish in (0, 2):  # before the first record is read, and amid them
        folder = tmp_path / str(vanish)
        writer = Writer.open(folder, plan())
        for index in range(SHARDS):
            add(writer, index)

        def read_one(folder, index, *, store, writer=writer, vanish=vanish):
            if index == vanish:
                monkeypatch.setattr(module, "read_record", real)
                writer.finish(SHARDS)
            return real(folder, index, store=store)

        monkeypatch.setattr(module, "read_record", read_one)
        manifest, records = read_state(folder)
        assert manifest.complete
        assert sorted(records) == list(range(SHARDS))
        writer.close()


def test_a_folder_that_may_not_be_listed_is_no_empty_store(tmp_path, monkeypatch):
    write_manifest(tmp_path, plan())

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StoreError, match="cannot be listed: Permission denied"):
        read_records(tmp_path)


def test_no_manifest(tmp_path):
    with pytest.raises(StoreError, match="is no store, or has lost it"):
        read_manifest(tmp_path)


def test_records_belong_to_one_store_and_one_shard(tmp_path):
    manifest = plan()
    write_manifest(tmp_path, manifest)
    write_record(tmp_path, RECORD, store=manifest.id)
    assert read_records(tmp_path) == {3: RECORD}
    with pytest.raises(StoreError, match="belongs to another store"):
        read_record(tmp_path, 3, store=plan(seed=1).id)
    (tmp_path / "000003.json").rename(tmp_path / "000004.json")
    with pytest.raises(StoreError, match="is the record of shard 3"):
        read_records(tmp_path)


def test_which_files_are_shards_and_records(tmp_path):
    for name in ("000002", "1000000", "7", "00000x", "0000002", "manifest"):
        (tmp_path / f"{name}.json").touch()
        (tmp_path / f"{name}.safetensors").touch()
    assert recorded(tmp_path) == [2, 1_000_000]
    assert numbered(listed(tmp_path), ".safetensors") == [2, 1_000_000]


def test_files_of_a_store_are_json_that_others_can_read(tmp_path):
    write_manifest(tmp_path, plan())
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["format"] == 1
    assert content["sites"] == {"L0.mlp.input": [16], "L2.z": [6, 8]}
    assert list(content) == sorted(content)
