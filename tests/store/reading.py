"""A small store whose numbers say where they are, written through the writer itself."""

from __future__ import annotations

import torch

from interp.corpora.packed import Cursor
from interp.store.manifest import Manifest
from interp.store.rows import Rows
from interp.store.store import ActivationStore
from interp.store.writer import Writer

SITES = {"L0.mlp.input": (6,), "L1.z": (2, 4)}
PER_DOCUMENT = 10


def table(n, *, dtype="float32", seed=0, sites=SITES):
    """``n`` rows: documents of ten tokens at positions 1 to 10 (a BOS at 0 is not kept)."""
    g = torch.Generator().manual_seed(seed)
    row = torch.arange(n)
    return Rows(
        {s: torch.randn(n, *shape, generator=g).to(getattr(torch, dtype)) for s, shape in sites.items()},
        tokens=(row % 50).int(),
        document=row // PER_DOCUMENT,
        position=(row % PER_DOCUMENT + 1).int(),
    )  # fmt: skip


def write(folder, rows, *, per_shard=40, dtype="float32", skip=(), finish=True, **plan):
    """A store of these rows; shards in ``skip`` are not written."""
    given = {
        "model": "tiny", "weights_hash": "a" * 64, "pairs": (("L0.mlp.input", "L1.z"),),
        "corpus": {"kind": "test"}, "tokens": None, "seed": 0, "versions": {},
        "layout": {"context": 16, "batch": 4, "packing": "rows", "bos": True, "special": False,
                   "batches_per_shard": 1},
    }  # fmt: skip
    sites = {site: tuple(x.shape[1:]) for site, x in rows.tensors.items()}
    starts = range(0, len(rows), per_shard)
    with Writer.open(folder, Manifest(**{**given, **plan}, sites=sites, dtype=dtype)) as writer:
        for i, start in enumerate(starts):
            if i not in skip:
                part = rows.take(slice(start, start + per_shard))
                writer.write(i, part, end=Cursor(i + 1), forwarded=len(part) + 4)
        if finish and not skip:
            writer.finish(len(starts))
    return ActivationStore.open(folder)


def same(one, two):
    """Rows that are equal to the bit, columns and dtypes too."""
    assert one.sites == two.sites
    pairs = [(one[site], two[site]) for site in one.sites]
    pairs += [(getattr(one, n), getattr(two, n)) for n in ("tokens", "document", "position")]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
