"""Filling a store: the same bytes on every way there, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from interp.corpora.packed import Cursor
from interp.errors import StoreError
from interp.store import writer as module
from interp.store.lock import being_written
from interp.store.manifest import read_manifest, read_records, write_record
from interp.store.shard import open_shard
from interp.store.verify import verify
from interp.store.writer import Writer
from tests.store.small import SHARDS, add, contents, fill, plan, rows

NAMES = ["manifest.json", *(f"{index:06d}.safetensors" for index in range(SHARDS))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The finished store."""
    return fill(tmp_path_factory.mktemp("whole") / "store")


def test_a_finished_store(whole):
    assert sorted(contents(whole)) == sorted(NAMES)
    manifest = read_manifest(whole)
    assert manifest.complete
    assert [record.rows for record in manifest.shards] == [20, 23, 26, 29, 0, 35]
    assert manifest.shards[1].end == Cursor(2, 0, "e")
    assert (manifest.shards[5].first_document, manifest.shards[5].last_document) == (50, 54)
    assert (manifest.shards[4].first_document, manifest.shards[4].last_document) == (-1, -1)
    read, given = open_shard(whole / NAMES[4]), rows(3)
    assert torch.equal(read["L2.z"], given["L2.z"])
    assert torch.equal(read["tokens"], given.tokens.to(torch.int32))
    assert read["document"].dtype == torch.int64
    assert read["position"].dtype == torch.int32


def test_no_time_place_or_process_in_any_byte(whole, tmp_path):
    assert contents(fill(tmp_path / "elsewhere" / "deeper")) == contents(whole)


def test_any_order_gives_the_same_bytes(whole, tmp_path):
    with Writer.open(tmp_path / "store", plan()) as writer:
        for index in (3, 0, 5, 4, 1, 2):
            add(writer, index)
        writer.finish(SHARDS)
    assert contents(tmp_path / "store") == contents(whole)


def test_helpers_join_and_the_lead_finishes(whole, tmp_path):
    with Writer.open(tmp_path / "store", plan()) as lead:
        helper = Writer.join(tmp_path / "store")
        for index in range(0, SHARDS, 2):
            add(lead, index)
            add(helper, index + 1)
        with pytest.raises(StoreError, match="opened by another writer"):
            helper.finish(SHARDS)
        with pytest.raises(StoreError, match="shard 1 is in .* already"):
            add(lead, 1)
        lead.finish(SHARDS)
        assert sorted(lead.done) == list(range(SHARDS))
    assert contents(tmp_path / "store") == contents(whole)


def test_resuming_finds_what_is_done(whole, tmp_path):
    with Writer.open(tmp_path / "store", plan()) as writer:
        add(writer, 0)
        add(writer, 2)
        assert repr(writer).endswith("2 shards so far)")
    (tmp_path / "store/.000001.safetensors.99.tmp").write_bytes(b"half")
    (tmp_path / "store/000001.safetensors").write_bytes(b"no record")
    with Writer.open(tmp_path / "store", plan()) as writer:
        assert sorted(writer.done) == [0, 2]
        assert not (tmp_path / "store/.000001.safetensors.99.tmp").exists()
    assert contents(fill(tmp_path / "store")) == contents(whole)


def test_a_complete_store_stays_as_it_is(whole):
    before, when = contents(whole), {p.name: p.stat().st_mtime_ns for p in whole.iterdir()}
    with Writer.open(whole, plan()) as writer:
        assert sorted(writer.done) == list(range(SHARDS))
        writer.finish(SHARDS)
        with pytest.raises(StoreError, match="complete with 6 shards: there is no shard 6"):
            add(writer, 6)
        with pytest.raises(StoreError, match=r"not complete with 7 shards.*000006"):
            writer.finish(7)
        with pytest.raises(StoreError, match=r"too many: 000005"):
            writer.finish(5)
    assert contents(whole) == before
    assert {p.name: p.stat().st_mtime_ns for p in whole.iterdir()} == when


def test_finishing_names_what_is_missing(tmp_path):
    with Writer.open(tmp_path / "store", plan()) as writer:
        add(writer, 0)
        add(writer, 2)
        (tmp_path / "store/000002.safetensors").unlink()
        with pytest.raises(StoreError, match=r"not there: 000001.safetensors, 000002.safetensors"):
            writer.finish(3)
        assert not read_manifest(tmp_path / "store").complete


@pytest.mark.parametrize("complete", [True, False])
def test_lost_and_cut_shards_are_computed_anew(whole, tmp_path, complete):
    store = tmp_path / "store"
    if complete:
        shutil.copytree(whole, store)
    else:
        with Writer.open(store, plan()) as writer:
            for index in range(SHARDS):
                add(writer, index)
    (store / "000001.safetensors").unlink()
    (store / "000003.safetensors").write_bytes(b"cut")
    with (
        pytest.warns(UserWarning, match=r"of another size: 000001.safetensors, 000003.saf"),
        Writer.open(store, plan()) as writer,
    ):
        assert sorted(writer.done) == sorted(read_records(store)) == [0, 2, 4, 5]
    assert contents(fill(store)) == contents(whole)


def test_a_damaged_record_is_computed_anew(whole, tmp_path):
    with Writer.open(tmp_path / "store", plan()) as writer:
        add(writer, 0)
        add(writer, 1)
    path = tmp_path / "store/000001.json"
    path.write_text(path.read_text().replace('"rows": 23', '"rows": 24'))
    with pytest.warns(UserWarning, match=r"000001.json' was edited or damaged"):
        fill(tmp_path / "store")
    assert contents(tmp_path / "store") == contents(whole)


def test_killed_between_the_manifest_and_the_records(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    manifest = read_manifest(whole)
    for record in manifest.shards[3:]:
        write_record(tmp_path / "store", record, store=manifest.id)
    assert sorted(read_records(tmp_path / "store")) == list(range(SHARDS))
    Writer.open(tmp_path / "store", plan()).close()
    assert contents(tmp_path / "store") == contents(whole)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights_hash": "0" * 64}, "weights"), ({"sites": {"L1.z": (6, 8)}}, "sites"),
        ({"dtype": "float32"}, "dtype"), ({"corpus": {"kind": "list"}}, "data sha256"),
        ({"layout": {}}, "layout batch: .* layout context"), ({"tokens": 1}, "tokens"), ({"seed": 1}, "seed"),
    ],
)  # fmt: skip
def test_another_plan_is_refused_by_name(whole, change, told):
    before = contents(whole)
    with pytest.raises(StoreError, match=f"holds another store: {told}"):
        Writer.open(whole, plan(**change))
    assert contents(whole) == before


def test_other_versions_are_warned_of_and_not_recorded(whole, tmp_path):
    with Writer.open(tmp_path / "store", plan()) as writer:
        add(writer, 0)
    with pytest.warns(UserWarning, match="begun with torch 2, here 3.*last bits"):
        fill(tmp_path / "store", manifest=plan(versions={"torch": "3"}))
    assert contents(tmp_path / "store") == contents(whole)
    fill(tmp_path / "store", manifest=plan(versions={"torch": "3"}))  # complete: nothing to warn of


def test_places_that_are_no_store(tmp_path, whole):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"is no store .* holds 'notes.txt' and 1 more"):
        Writer.open(tmp_path, plan())
    assert sorted(contents(tmp_path)) == ["notes.txt", "other.txt"]
    with pytest.raises(StoreError, match="is a file; a store is a folder"):
        Writer.open(tmp_path / "notes.txt", plan())
    with pytest.raises(StoreError, match=r"holds a store already.*never overwritten.*resume=True"):
        Writer.open(whole, plan(), resume=False)
    (tmp_path / "empty").mkdir()
    Writer.open(tmp_path / "empty", plan(), resume=False).close()
    with pytest.raises(StoreError, match="is no store, or has lost it"):
        Writer.join(tmp_path / "nothing")


def test_a_damaged_manifest_is_not_written_over(tmp_path, whole):
    store = tmp_path / "store"
    shutil.copytree(whole, store)
    (store / "manifest.json").write_bytes((store / "manifest.json").read_bytes()[:-9])
    before = contents(store)
    with pytest.raises(StoreError, match="edited or damaged"):
        Writer.open(store, plan())
    assert contents(store) == before


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda r: replace(r, tensors={"L2.z": r["L2.z"]}), "sites and shapes"),
        (lambda r: replace(r, tensors={**r.tensors, "L2.z": r["L2.z"][:, :3]}), "sites and shapes"),
        (lambda r: replace(r, tensors={**r.tensors, "L2.z": r["L2.z"][:5]}), "numbers of rows"),
        (lambda r: replace(r, document=r.document[:5]), "numbers of rows"),
        (lambda r: r.to(dtype=torch.float32), "dtypes {'float32'}; the store holds {'bfloat16'}"),
    ],
)
@pytest.mark.bad_input
def test_rows_that_do_not_fit_are_refused(tmp_path, spoil, told):
    with Writer.open(tmp_path / "store", plan()) as writer:
        with pytest.raises(StoreError, match=told):
            writer.write(0, spoil(rows(0)), end=Cursor(), forwarded=1)
        assert writer.done == {}
    assert list(contents(tmp_path / "store")) == ["manifest.json"]


def test_two_writers_of_one_process(tmp_path):
    with Writer.open(tmp_path / "store", plan()):
        with pytest.raises(StoreError, match="another process is writing .*or this one"):
            Writer.open(tmp_path / "store", plan())
        assert being_written(tmp_path / "store")
    assert not being_written(tmp_path / "store")
    Writer.open(tmp_path / "store", plan()).close()


def test_a_second_process_is_refused_until_the_first_dies(tmp_path, whole):
    Writer.open(tmp_path / "store", plan()).close()
    code = (
        "import sys, pathlib; from interp.store.lock import acquire; "
        "held = acquire(pathlib.Path(sys.argv[1])); sys.stdout.write('held\\n'); "
        "sys.stdout.flush(); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match="another process is writing"):
            Writer.open(tmp_path / "store", plan())
        assert verify(tmp_path / "store").ok
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (tmp_path / "store/.writer.lock").exists()  # of the dead; it locks nobody out
    assert contents(fill(tmp_path / "store")) == contents(whole)


def test_a_writer_that_fails_to_open_lets_go(tmp_path, monkeypatch):
    monkeypatch.setattr(
        module, "write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        Writer.open(tmp_path / "store", plan())
    monkeypatch.undo()
    Writer.open(tmp_path / "store", plan()).close()


def test_records_say_what_the_shards_are(whole):
    for record in read_manifest(whole).shards:
        raw = (whole / f"{record.index:06d}.safetensors").read_bytes()
        assert len(raw) == record.bytes
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        assert header["__metadata__"]["shard"] == str(record.index)
        assert header["__metadata__"]["store"] == read_manifest(whole).id
