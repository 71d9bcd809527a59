"""A shard's bytes: what the safetensors library reads, always the same, mapped and not copied."""

from __future__ import annotations

import hashlib

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from interp.errors import StoreError
from interp.store.shard import COLUMNS, open_shard, read_header, write_shard
from tests.store.small import rows

HEADER = {"store": "ab" * 32, "shard": "3"}


def tensors(index: int = 3, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    some = rows(index, dtype=dtype)
    columns = {name: getattr(some, name).to(kind) for name, kind in COLUMNS.items()}
    return {**some.tensors, **columns}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("index", [3, 4])  # 4 has no rows
def test_the_library_reads_what_was_written(tmp_path, index, dtype):
    path, written = tmp_path / "a.safetensors", tensors(index, dtype)
    write_shard(path, written, header=HEADER)
    for read in (load_file(path), open_shard(path)):
        assert read.keys() == written.keys()
        for name, x in written.items():
            assert read[name].dtype == x.dtype
            assert torch.equal(read[name], x)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == HEADER
    assert read_header(path)["L2.z"]["shape"] == [len(rows(index)), 6, 8]


def test_what_the_library_writes_is_read(tmp_path):
    save_file(tensors(), tmp_path / "a.safetensors", metadata=HEADER)
    assert torch.equal(open_shard(tmp_path / "a.safetensors")["L2.z"], rows(3)["L2.z"])


def test_bytes_depend_on_values_only(tmp_path):
    one = write_shard(tmp_path / "a", tensors(), header=HEADER)
    backwards = dict(reversed(tensors().items()))
    two = write_shard(tmp_path / "b", backwards, header=dict(reversed(HEADER.items())))
    strided = {name: torch.stack([x, x], -1)[..., 0] for name, x in tensors().items()}
    assert not strided["L2.z"].is_contiguous()
    three = write_shard(tmp_path / "c", strided, header=HEADER)
    assert one == two == three
    raw = (tmp_path / "a").read_bytes()
    assert one == (len(raw), hashlib.sha256(raw).hexdigest())
    assert raw == (tmp_path / "c").read_bytes()


def test_every_tensor_lies_aligned(tmp_path):
    write_shard(
        tmp_path / "a", {**tensors(), "x": torch.zeros(3, dtype=torch.bfloat16)}, header=HEADER
    )
    begin = 8 + int.from_bytes((tmp_path / "a").read_bytes()[:8], "little")
    header = read_header(tmp_path / "a")
    for name, x in tensors().items():
        assert (begin + header[name]["data_offsets"][0]) % x.element_size() == 0


def test_reading_maps_and_copies_nothing(tmp_path):
    write_shard(tmp_path / "a", {"x": torch.zeros(8_000_000)}, header={})
    process = psutil.Process()
    before = process.memory_info().rss
    x = open_shard(tmp_path / "a")["x"]
    assert process.memory_info().rss - before < 8_000_000
    assert x[7_000_000] == 0
    x[0] = 1.0  # the map is private
    assert open_shard(tmp_path / "a")["x"][0] == 0


def test_writing_does_not_copy_the_data(tmp_path, monkeypatch):
    x, seen = torch.randn(1000), []

    def keep(path, chunks):
        seen.extend(chunks)
        return 0, ""

    monkeypatch.setattr("interp.store.shard.write_new", keep)
    write_shard(tmp_path / "a", {"x": x}, header={})
    x[0] = 5.0
    assert torch.frombuffer(bytearray(seen[2]), dtype=torch.float32)[0] == 5.0


def test_damaged_and_missing_shards(tmp_path):
    with pytest.raises(StoreError, match="missing or damaged"):
        open_shard(tmp_path / "a")
    write_shard(tmp_path / "a", tensors(), header=HEADER)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-5])
    with pytest.raises(StoreError, match="missing or damaged"):
        open_shard(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"\x05\0\0\0\0\0\0\0[1,2]")
    with pytest.raises(StoreError, match="does not begin with a shard's header"):
        read_header(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"\xff" * 20)
    with pytest.raises(StoreError, match="does not begin with a shard's header"):
        read_header(tmp_path / "b")
