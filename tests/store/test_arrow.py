"""To SAELens's format and back, read by SAELens itself."""

import warnings

import numpy as np
import pytest
import torch

from interp.errors import StoreError
from interp.store import arrow, arrow_reading
from interp.store.store import ActivationStore
from tests.store.reading import same, table, write

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()
CONTEXT = 16


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Several pieces and several files, also of a small store."""
    monkeypatch.setattr(arrow, "_PIECE", 4096)
    monkeypatch.setattr(arrow, "_FILE", 8192)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = table(20 * CONTEXT)
    return rows, write(tmp_path_factory.mktemp("store") / "s", rows)


@pytest.fixture(scope="module")
def sae_lens():
    """The library, which warns about one of its own imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
    return sae_lens


def their_store(sae_lens, path, hook, width):
    """SAELens's own store on cached activations, made as its training runner makes it."""
    return sae_lens.ActivationsStore(
        model=None, dataset=None, streaming=False, hook_name=hook, hook_head_index=None,
        context_size=CONTEXT, d_in=width, n_batches_in_buffer=4, total_training_tokens=320,
        store_batch_size_prompts=4, train_batch_size_tokens=32, prepend_bos=True,
        normalize_activations="none", device=torch.device("cpu"), dtype="float32",
        cached_activations_path=str(path), activations_mixing_fraction=0.0,
    )  # fmt: skip


def test_sae_lens_reads_the_rows_of_our_store(made, tmp_path, sae_lens):
    rows, store = made
    store.to_datasets(tmp_path / "a")
    for site, hook in (("L0.mlp.input", "blocks.0.mlp.hook_in"), ("L1.z", "blocks.1.attn.hook_z")):
        flat = rows[site].flatten(1)
        theirs = their_store(sae_lens, tmp_path / "a", hook, flat.shape[1])
        read = [theirs.get_raw_llm_batch() for _ in range(5)]
        assert torch.equal(torch.cat([acts for acts, _ in read]), flat)
        assert torch.equal(torch.cat([ids for _, ids in read]).int(), rows.tokens)
        batch = next(their_store(sae_lens, tmp_path / "a", hook, flat.shape[1]))  # for its trainer
        assert batch.shape == (32, flat.shape[1])
        assert set(map(tuple, batch.tolist())) <= set(map(tuple, flat.tolist()))


def test_a_store_of_what_sae_lens_wrote(tmp_path, sae_lens):
    """A data set with the features and the layout of its CacheActivationsRunner."""
    from datasets import Array2D, Dataset, Features, Sequence, Value

    x = torch.randn(6, CONTEXT, 8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(6 * CONTEXT, dtype=torch.int32).view(6, CONTEXT)
    features = Features({
        "blocks.2.hook_mlp_out": Array2D(shape=(CONTEXT, 8), dtype="float32"),
        "token_ids": Sequence(Value(dtype="int32"), length=CONTEXT),
    })  # fmt: skip
    shards = tmp_path / "theirs" / ".tmp_shards"
    for i in range(3):
        part = slice(2 * i, 2 * i + 2)
        content = {"blocks.2.hook_mlp_out": x[part], "token_ids": ids[part]}
        Dataset.from_dict(content, features=features).save_to_disk(
            shards / f"shard_{i:05d}", num_shards=1
        )
    theirs = sae_lens.CacheActivationsRunner._consolidate_shards(
        shards, tmp_path / "theirs", copy_files=False
    )
    for given, name in ((theirs, "one"), (tmp_path / "theirs", "two")):
        store = ActivationStore.from_datasets(given, tmp_path / name, rows_per_shard=2 * CONTEXT)
        assert store.complete
        assert store.sites == {"L2.mlp_out": (8,)}
        assert len(store.info()["versions"]) > 0
        assert store.info()["shards"] == 3
        rows = store.rows(slice(None))
        assert torch.equal(rows["L2.mlp_out"], x.flatten(0, 1))
        assert torch.equal(rows.tokens, ids.flatten())
        assert torch.equal(store.at(4, 7)["L2.mlp_out"][0], x[4, 7])
    assert store.verify().ok


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_there_and_back(tmp_path, dtype):
    rows = table(5 * CONTEXT, dtype=dtype, sites={"L0.mlp.input": (6,), "L1.mlp_out": (3,)})
    store = write(tmp_path / "s", rows, dtype=dtype)
    data = store.to_datasets(tmp_path / "a")
    assert data.features["blocks.0.mlp.hook_in"].dtype == (
        "float16" if dtype == "float16" else "float32"
    )
    back = ActivationStore.from_datasets(data, tmp_path / "b", dtype=dtype)
    assert same(back.rows(slice(None)), rows)  # documents and positions too


def test_in_memory_and_on_disk_are_equal(made, tmp_path):
    _, store = made
    memory, disk = store.to_datasets(), store.to_datasets(tmp_path / "a")
    assert len(list((tmp_path / "a").glob("data-*.arrow"))) > 1
    assert memory.features == disk.features == datasets.load_from_disk(tmp_path / "a").features
    assert memory.to_dict() == disk.to_dict()
    shuffled = disk.shuffle(seed=1)  # the library works with it as with its own
    assert sorted(np.ravel(shuffled["document"])) == sorted(np.ravel(memory["document"]))


def test_rows_that_do_not_fill_a_context_are_told(made):
    rows, store = made
    with pytest.warns(UserWarning, match=r"the last 20 of 320 rows do not fill a context of 50"):
        data = store.to_datasets(context=50, sites="L0.mlp.input")
    assert len(data) == 6
    assert np.array_equal(
        np.array(data[5]["blocks.0.mlp.hook_in"], dtype=np.float32), rows["L0.mlp.input"][250:300]
    )


def test_a_broken_off_conversion_is_resumed(made, tmp_path, monkeypatch):
    _, store = made
    data = store.to_datasets(tmp_path / "a")
    real, calls = arrow_reading._rows, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(arrow_reading, "_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        ActivationStore.from_datasets(data, tmp_path / "b", rows_per_shard=CONTEXT * 4)
    assert not ActivationStore.open(tmp_path / "b").complete
    back = ActivationStore.from_datasets(data, tmp_path / "b", rows_per_shard=CONTEXT * 4)
    assert len(calls) == 3 + 3
    assert len(back) == 320
    straight = ActivationStore.from_datasets(data, tmp_path / "c", rows_per_shard=CONTEXT * 4)
    for path in straight.folder.iterdir():
        assert path.read_bytes() == (back.folder / path.name).read_bytes(), path.name


def test_the_model_it_came_from_can_be_told(made, tmp_path):
    from types import SimpleNamespace

    _, store = made
    model = SimpleNamespace(name="tiny", weights_hash="a" * 64)
    data = store.to_datasets()
    back = ActivationStore.from_datasets(data, tmp_path / "b", model=model)
    assert len(ActivationStore.open(back.folder, model=model)) == 320
    unknown = ActivationStore.from_datasets(data, tmp_path / "c")
    with pytest.raises(StoreError, match=r"weights: the store has unknown \(unknown\), here tiny"):
        ActivationStore.open(unknown.folder, model=model)


def test_what_cannot_be_converted_says_so(made, tmp_path):
    _, store = made
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StoreError, match=r"holds something: give a new or empty folder"):
        store.to_datasets(tmp_path / "full")
    with pytest.raises(
        StoreError, match=r"context=999: .* expected a whole number from 1 to those"
    ):
        store.to_datasets(context=999)
    heads = write(tmp_path / "s", table(32, sites={"L1.H0.z": (4,), "L1.H1.z": (4,)}))
    with pytest.raises(
        StoreError, match=r"L1.H0.z and L1.H1.z are parts of one tensor, 'blocks.1.attn.hook_z'"
    ):
        heads.to_datasets()
    text = datasets.Dataset.from_dict({"text": ["one"]})
    with pytest.raises(
        StoreError, match=r"expected SAELens's cached activations: a column Array2D"
    ):
        ActivationStore.from_datasets(text, tmp_path / "t")
    features = datasets.Features({"mine": datasets.Array2D((2, 3), "float32")})
    odd = datasets.Dataset.from_dict({"mine": [np.zeros((2, 3))]}, features=features)
    with pytest.raises(StoreError, match=r"the column 'mine' is no hook"):
        ActivationStore.from_datasets(odd, tmp_path / "t")


def test_a_failed_conversion_leaves_the_folder_free(made, tmp_path, monkeypatch):
    _, store = made
    real, calls = arrow._table, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(arrow, "_table", dies)
    with pytest.raises(KeyboardInterrupt):
        store.to_datasets(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []
    assert len(store.to_datasets(tmp_path / "a")) == 20
