"""Reading a store: every row is the one that was written, and what is not there is said."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interp.corpora.reading import read
from interp.errors import StoreError
from interp.store import maps
from interp.store.rows import Rows
from interp.store.store import ActivationStore
from tests.store.reading import SITES, same, table, write


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = table(150)
    return rows, write(tmp_path_factory.mktemp("store") / "s", rows)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_are_what_was_written(tmp_path, dtype):
    rows = table(150, dtype=dtype)
    store = write(tmp_path / "s", rows, dtype=dtype)
    assert len(store) == 150
    assert store.dtype is getattr(torch, dtype)
    assert same(store.rows(slice(None)), rows)
    shuffled = torch.randperm(150, generator=torch.Generator().manual_seed(1))
    assert same(store.rows(shuffled), rows.take(shuffled))


def test_any_order_and_the_same_row_twice(made):
    rows, store = made
    for index in ([149, 0, 40, 39, 0, 0], np.array([80, 79]), torch.tensor([5]), range(38, 42)):
        given = list(index) if isinstance(index, range) else index
        assert same(store.rows(given), rows.take(torch.as_tensor(np.asarray(given))))
    assert same(store.rows(7), rows.take(slice(7, 8)))
    assert same(store.rows(slice(30, 90, 7)), rows.take(torch.arange(30, 90, 7)))
    assert len(store.rows([])) == 0
    assert store.rows([])["L1.z"].shape == (0, 2, 4)


def test_more_rows_than_the_buffer_takes_at_once(made, monkeypatch):
    rows, store = made
    monkeypatch.setattr(maps, "_BUFFER", 100)
    index = torch.randperm(150, generator=torch.Generator().manual_seed(2))
    assert same(store.rows(index), rows.take(index))


def test_some_sites(made):
    rows, store = made
    assert store.rows([3], sites="L1.z").sites == ("L1.z",)
    assert store.rows([3], sites="blocks.1.attn.hook_z").sites == ("L1.z",)
    assert store.rows([3], sites=["L*.z", "L0.mlp.input"]).sites == ("L1.z", "L0.mlp.input")
    opened = ActivationStore.open(store.folder, sites=["L1.z"])
    assert opened.sites == {"L1.z": (2, 4)}
    assert torch.equal(opened.rows([9])["L1.z"], rows["L1.z"][9:10])
    with pytest.raises(
        StoreError, match=r"lacks 'L2.z'; it has L0.mlp.input, L1.z; nearest: 'L1.z"
    ):
        ActivationStore.open(store.folder, sites=["L2.z"])


@pytest.mark.bad_input
def test_a_row_that_is_not_there(made):
    _, store = made
    with pytest.raises(StoreError, match=r"there is no row 150: this store has 150 rows"):
        store.rows([0, 150])
    with pytest.raises(
        StoreError, match=r"no row -1: .* negative numbers do not count from the end"
    ):
        store.rows(-1)
    with pytest.raises(StoreError, match=r"counted from 0 up, and a slice runs forwards"):
        store.rows(slice(-5, None))
    with pytest.raises(StoreError, match=r"rows by bool of shape \[150\]; .* mask.nonzero\(\)"):
        store.rows(torch.ones(150, dtype=torch.bool))


def test_by_document_and_position(made):
    rows, store = made
    index = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    documents, positions = rows.document[index], rows.position[index]
    assert torch.equal(store.find(documents, positions), index)
    assert same(store.at(documents, positions), rows.take(index))
    assert store.find(3, [1, 2, 10]).tolist() == [30, 31, 39]
    assert store.find([0, 14], 4).tolist() == [3, 143]
    assert store.at(14, 4, sites="L1.z").sites == ("L1.z",)


def test_rows_in_no_order_are_found_too(tmp_path):
    rows = table(150).take(torch.randperm(150, generator=torch.Generator().manual_seed(4)))
    store = write(tmp_path / "s", rows)
    assert torch.equal(store.find(rows.document, rows.position), torch.arange(150))


def test_a_token_that_is_not_there(made, tmp_path):
    _, store = made
    with pytest.raises(
        StoreError,
        match=r"document 3, position 0 is not in .*: of that document it has positions 1 to 10. "
        r"Special tokens \(a BOS, say\) are not kept unless asked for",
    ):
        store.at([2, 3], [1, 0])
    with pytest.raises(
        StoreError,
        match=r"document 15, .* has no token of that document. Its rows reach document 14; texts",
    ):
        store.at(15, 1)
    with pytest.raises(StoreError, match=r"document 0, position -1 .*: both are counted from 0"):
        store.at(0, -1)
    with pytest.raises(StoreError, match=r"2 documents and 3 positions; expected one for each"):
        store.at([1, 2], [1, 2, 3])
    rows = table(30)
    some = write(tmp_path / "s", rows.take(torch.tensor([0, 1, 4, 6, 8, 9, 12])), finish=False)
    with pytest.raises(StoreError, match=r"it has positions 1 to 2, 5, 7, 9 to 10\."):
        some.at(0, 3)
    with pytest.raises(StoreError, match=r"reach document 1 so far \(it is unfinished\)"):
        some.at(2, 1)


def test_a_piece_that_begins_with_a_bos_of_no_position(tmp_path):
    """A BOS put before a later piece has position -1, and may be kept: it hides nothing."""
    rows = table(20)
    rows.position[[5, 15]] = -1
    store = write(tmp_path / "s", rows, per_shard=7)
    assert store.find([0, 0, 1], [5, 7, 7]).tolist() == [4, 6, 16]
    assert store.context(5).tolist() == [5]
    with pytest.raises(StoreError, match=r"positions 1 to 5, 7 to 10\."):
        store.at(1, 6)


def test_the_tokens_around_a_row(made):
    _, store = made
    assert store.context(35, before=2, after=3).tolist() == [33, 34, 35, 36, 37, 38]
    assert store.context(31).tolist() == [30, 31, 32, 33, 34, 35, 36]  # its own document alone
    assert store.context(39, before=0).tolist() == [39]
    with pytest.raises(StoreError, match=r"before=-1, after=5; expected numbers of tokens"):
        store.context(3, before=-1)


def test_the_text_around_a_row(tmp_path, bpe_tokenizer):
    ids = bpe_tokenizer("The capital of France is Paris")["input_ids"]
    rows = table(len(ids), sites={"L0.mlp.input": (6,)})
    rows = Rows(
        rows.tensors, torch.tensor(ids).int(), rows.document * 0, torch.arange(len(ids)).int() + 1
    )
    store = write(tmp_path / "s", rows)
    place = bpe_tokenizer.convert_ids_to_tokens(ids).index("ĠFrance")
    assert store.text(place, bpe_tokenizer) == "The capital of« France» is Paris"
    model = SimpleNamespace(tokens=bpe_tokenizer)
    assert store.text(place, model, before=1, after=0, marks=("[", "]")) == " of[ France]"


def test_a_store_in_the_making_has_the_rows_of_its_finished_shards(tmp_path):
    rows = table(150)
    store = write(tmp_path / "s", rows, skip=(1,))
    there = torch.cat([torch.arange(0, 40), torch.arange(80, 150)])
    assert not store.complete
    assert "unfinished" in repr(store)
    assert len(store) == 110
    assert same(store.rows(slice(None)), rows.take(there))
    assert store.find(8, 1).tolist() == [40]
    assert sum(len(batch) for batch in store.batches(32)) == 110
    empty = write(tmp_path / "none", rows, skip=(0, 1, 2, 3))
    assert len(empty) == 0
    assert empty.n_documents == 0
    with pytest.raises(StoreError, match=r"there is no row 0: this store has 0 rows"):
        empty.rows(0)
    with pytest.raises(StoreError, match=r"has no token of that document"):
        empty.at(0, 1)


def test_a_shard_without_rows(tmp_path):
    rows = table(80)
    store = write(tmp_path / "s", rows, skip=(1,))
    hollow = write(tmp_path / "t", rows.take(slice(0, 40)), finish=False)
    from interp.corpora.packed import Cursor
    from interp.store.writer import Writer

    with Writer.open(hollow.folder, hollow.manifest) as writer:
        writer.write(1, rows.take(slice(0, 0)), end=Cursor(9), forwarded=3)
        writer.write(2, rows.take(slice(40, 80)), end=Cursor(10), forwarded=3)
        writer.finish(3)
    hollow = ActivationStore.open(hollow.folder)
    assert same(hollow.rows(slice(None)), rows)
    assert hollow.find(4, 1).tolist() == [40]
    assert len(store) == 40


def test_what_a_person_wants_to_know(made):
    _, store = made
    assert repr(store) == (
        f"ActivationStore({str(store.folder)!r}: 150 rows of L0.mlp.input, L1.z; float32, tiny)"
    )
    info = store.info()
    assert json.loads(json.dumps(info)) == info
    assert (info["rows"], info["shards"], info["documents"], info["tokens forwarded"]) == (
        150,
        4,
        15,
        166,
    )
    assert (
        info["bytes"]
        == store.nbytes
        == sum(p.stat().st_size for p in Path(store.folder).glob("*.safetensors"))
    )
    assert store.pairs == (("L0.mlp.input", "L1.z"),)
    assert store.verify().ok


def test_other_weights_are_refused_by_name(made):
    _, store = made
    mine = SimpleNamespace(name="tiny", weights_hash="a" * 64)
    assert len(ActivationStore.open(store.folder, model=mine)) == 150
    other = SimpleNamespace(name="other", weights_hash="b" * 64)
    with pytest.raises(
        StoreError,
        match=r"weights: the store has tiny \(aaaaaaaaaaaa\), here other \(bbbbbbbbbbbb\). Give what",
    ):
        ActivationStore.open(store.folder, model=other)


def test_other_data_is_refused_by_name(tmp_path):
    corpus = read(["one text", "another"])
    write(tmp_path / "s", table(40), corpus=corpus.identity)
    assert len(ActivationStore.open(tmp_path / "s", corpus=corpus)) == 40
    assert len(ActivationStore.open(tmp_path / "s", corpus=["one text", "another"])) == 40
    with pytest.raises(StoreError, match=r"is another store: data sha256: the store has .* here"):
        ActivationStore.open(tmp_path / "s", corpus=["one text", "changed"])


def test_no_store_and_damaged_ones(tmp_path):
    with pytest.raises(StoreError, match=r"is no store"):
        ActivationStore.open(tmp_path)
    store = write(tmp_path / "s", table(150))
    shard = store.folder / "000002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-8])
    reopened = ActivationStore.open(store.folder)
    assert len(reopened.rows([0])) == 1  # other shards can be read
    with pytest.raises(StoreError, match=r"000002.* bytes, its record says .*: it is damaged"):
        reopened.rows([0, 85])
    shard.unlink()
    with pytest.raises(StoreError, match=r"000002.*is missing .*take it from a copy"):
        reopened.rows([85])
    other = write(tmp_path / "t", table(150, sites={"L0.mlp.input": (14,)}))
    content = (other.folder / "000002.safetensors").read_bytes()
    records = {r.index: r.bytes for r in reopened._maps.records}
    shard.write_bytes(content + b"\0" * (records[2] - len(content)))
    with pytest.raises(StoreError, match=r"000002"):
        reopened.rows([85])


def test_reading_does_not_open_the_shards_it_does_not_need(made, monkeypatch):
    _, store = made
    opened = []
    real = maps.open_shard
    monkeypatch.setattr(maps, "open_shard", lambda path: opened.append(path.name) or real(path))
    fresh = ActivationStore.open(store.folder)
    assert opened == []
    fresh.at(9, 3)
    fresh.rows([85, 90])
    assert opened == ["000002.safetensors"]


def test_many_shards_are_not_all_kept_open(made, monkeypatch):
    rows, store = made
    monkeypatch.setattr(maps, "_MOST_OPEN", 2)
    fresh = ActivationStore.open(store.folder)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(3):
        assert same(fresh.rows(slice(None)), rows)
    assert len(fresh._maps._open) == 2
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_another_process_opens_shards_of_its_own(made):
    rows, store = made
    store.find(3, 1)
    copy = pickle.loads(pickle.dumps(store))  # as a DataLoader that spawns its workers does
    assert not copy._maps._open
    assert same(copy.rows([5, 80]), rows.take(torch.tensor([5, 80])))
    assert list(SITES) == list(copy.sites)


def test_what_is_read_is_the_readers_own(made):
    """Writing to rows that were read changes neither the file nor what is read next."""
    rows, store = made
    store.rows(slice(0, 40))["L1.z"].zero_()
    assert same(store.rows(slice(0, 40)), rows.take(slice(0, 40)))
