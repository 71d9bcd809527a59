"""A store of six small shards whose every byte follows from its plan, and ways to fill it."""

from __future__ import annotations

from pathlib import Path

import torch

from interp.corpora.packed import Cursor
from interp.store.manifest import Manifest
from interp.store.rows import Rows
from interp.store.writer import Writer

SHARDS = 6


def plan(**changes) -> Manifest:
    """Two sites in bfloat16; ``changes`` replace what the plan says."""
    return Manifest(
        **{
            "model": "synthetic",
            "weights_hash": "ab" * 32,
            "sites": {"L2.z": (6, 8), "L0.mlp.input": (16,)},
            "pairs": (("L0.mlp.input", "L2.z"),),
            "dtype": "bfloat16",
            "corpus": {"kind": "list", "sha256": "cd" * 32},
            "layout": {"context": 16, "batch": 4, "packing": "whole", "batches_per_shard": 2},
            "tokens": None,
            "seed": 0,
            "versions": {"torch": "2"},
            **changes,
        }
    )


def rows(index: int, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Rows:
    """The rows of one shard; shard 4 has none, as where every token was filtered."""
    generator = torch.Generator().manual_seed(1000 * seed + index)
    n = 0 if index == 4 else 20 + 3 * index
    return Rows(
        {
            "L2.z": torch.randn(n, 6, 8, generator=generator).to(dtype),
            "L0.mlp.input": torch.randn(n, 16, generator=generator).to(dtype),
        },
        tokens=torch.randint(0, 500, (n,), generator=generator),
        document=10 * index + torch.arange(n) // 8,
        position=torch.arange(n) % 8,
    )


def add(writer: Writer, index: int, *, seed: int = 0) -> None:
    """Write one shard of the store."""
    writer.write(index, rows(index, seed=seed), end=Cursor(index + 1, 0, "e"), forwarded=30)


def fill(folder: Path, *, manifest: Manifest | None = None, seed: int = 0) -> Path:
    """Begin or resume the store, add what is missing, finish it."""
    with Writer.open(folder, plan() if manifest is None else manifest) as writer:
        for index in range(SHARDS):
            if index not in writer.done:
                add(writer, index, seed=seed)
        writer.finish(SHARDS)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
