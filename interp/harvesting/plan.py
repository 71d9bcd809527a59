"""How a corpus will be harvested: settled once, written into the manifest, kept by every resumption."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from interp.corpora.corpus import Corpus
from interp.corpora.packing import Packing, Way
from interp.errors import RunError
from interp.harvesting.forecast import rows_that_fit, that_runs
from interp.harvesting.proof import packs
from interp.harvesting.wanted import Wanted
from interp.models.model import Model
from interp.results import versions
from interp.store.manifest import MANIFEST, Manifest, read_manifest
from interp.store.shard import COLUMNS

__all__ = ["DTYPES", "Asked", "Dtype", "Plan", "PackingName", "settle", "settled_packing", "whole"]

Dtype = Literal["bfloat16", "float32", "float16"]
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(Dtype)}
PackingName = Literal["auto", "isolated", "padded", "joined"]
SHARD_MIB = 64


@dataclass(frozen=True)
class Asked:
    """What the caller asked for; ``"auto"`` and None are settled by :func:`settle`."""

    dtype: Dtype
    context: int
    tokens: int | None
    batch: int | Literal["auto"]
    seed: int
    packing: PackingName
    bos: bool | None
    special: bool
    shard_mib: float | None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise RunError(f"dtype={self.dtype!r}; expected one of {', '.join(DTYPES)}.")
        if self.packing not in get_args(PackingName):
            raise RunError(
                f"packing={self.packing!r}; expected one of {', '.join(get_args(PackingName))}."
            )
        if self.bos not in (None, True, False):
            raise RunError(f"bos={self.bos!r}; expected True, False or None.")
        for name, other in (
            ("context", ()),
            ("tokens", (None,)),
            ("batch", ("auto",)),
            ("seed", ()),
        ):
            if (value := getattr(self, name)) not in other:
                object.__setattr__(self, name, whole(name, value, other))
        size = self.shard_mib
        if size is not None and not (isinstance(size, Real) and 0 < size < math.inf):
            raise RunError(f"shard_mib={size!r}; expected more than 0 MiB, or None.")


def whole(name: str, value: Any, other: tuple[Any, ...] = ()) -> int:
    """A whole number however it is written: 1e6, NumPy's. All but a seed are more than 0.

    Raises:
        RunError: it is none; ``other`` is what could be given too.
    """
    given = isinstance(value, Real) and not isinstance(value, bool) and value % 1 == 0
    if given and (value > 0 or name == "seed"):
        return int(value)
    least = "" if name == "seed" else " more than 0"
    raise RunError(
        f"{name}={value!r}; expected {' or '.join([f'a whole number{least}', *map(repr, other)])}."
    )


@dataclass(frozen=True)
class Plan:
    """A harvest, settled.

    Attributes:
        how: how the corpus is packed.
        per_shard: batches in a shard.
        notes: what the reader should know about how this was settled.
        manifest: all of it, as the store keeps it.
    """

    how: Packing
    per_shard: int
    notes: tuple[str, ...]
    manifest: Manifest


def settle(model: Model, corpus: Corpus, sites: Wanted, asked: Asked, out: Path) -> Plan:
    """Settle what was left open, as a store in ``out`` had it where there is one.

    Raises:
        RunError: a context that is longer than the model's, or a packing that it does not honour.
        BudgetError: a single row does not fit in memory.
        StoreError: the manifest that is there is damaged.
    """
    before = read_manifest(out) if (out / MANIFEST).exists() else None
    how, notes = settled_packing(model, sites, asked, before)
    layout = before.layout if before else {}
    per_shard = _per_shard(how, _row_bytes(sites, asked.dtype), asked, layout)
    layout = {
        "context": how.context, "batch": how.rows, "packing": how.way, "bos": how.bos,
        "special": how.special, "batches_per_shard": per_shard,
        "tokenizer": _tokenizer_hash(model.tokenizer),
    }  # fmt: skip
    manifest = Manifest(
        model=model.name, weights_hash=model.weights_hash, sites=sites.named, pairs=sites.pairs,
        dtype=asked.dtype, corpus=corpus.identity, layout=layout, tokens=asked.tokens,
        seed=asked.seed, versions=versions(),
    )  # fmt: skip
    return Plan(how, per_shard, notes, manifest)


def settled_packing(
    model: Model, sites: Wanted, asked: Asked, before: Manifest | None = None
) -> tuple[Packing, tuple[str, ...]]:
    """How the corpus is packed, as it was ``before`` where there is a store, and what to know of it.

    Raises:
        RunError: a context that is longer than the model's, or a packing that it does not honour.
        BudgetError: a single row does not fit in memory.
    """
    if model.n_ctx is not None and asked.context > model.n_ctx:
        raise RunError(
            f"context={asked.context}, but {model.name!r} reads at most {model.n_ctx} tokens: give "
            f"context={model.n_ctx} or less."
        )
    way, notes = _way(model, sites, asked, before)
    rows = asked.batch if asked.batch != "auto" else before.layout["batch"] if before else 0
    how = Packing(asked.context, rows or 1, way, asked.bos, asked.special)
    if not rows:
        most = rows_that_fit(model, sites, asked.context)
        how = that_runs(model, sites, replace(how, rows=most))
    return how, notes


def _way(
    model: Model, sites: Wanted, asked: Asked, before: Manifest | None
) -> tuple[Way, tuple[str, ...]]:
    """How texts share rows; each stands alone where the model does not keep them apart."""
    if asked.packing in ("padded", "joined"):
        return asked.packing, ()
    known = before.layout["packing"] if before else None
    if asked.packing == "auto" and before and (before.complete or known == "padded"):
        return known, ()  # type: ignore[return-value]
    why = packs(model, sites.sites, context=asked.context)
    if why is None:
        return "isolated", ()
    if asked.packing == "isolated":
        raise RunError(
            f"packing='isolated' cannot be had: {why}. Use 'padded' (the same values, a row for each "
            "text) or 'joined' (texts in one row see each other)."
        )
    return "padded", (f"each text has a row of its own, since {why}",)


def _row_bytes(sites: Wanted, dtype: str) -> int:
    columns = sum(kind.itemsize for kind in COLUMNS.values())
    return sites.width * DTYPES[dtype].itemsize + columns


def _per_shard(how: Packing, row_bytes: int, asked: Asked, before: Mapping[str, Any]) -> int:
    """Batches in a shard of about the size asked for."""
    if asked.shard_mib is None and before:
        return int(before["batches_per_shard"])
    wanted = (asked.shard_mib or SHARD_MIB) * 2**20
    return max(1, math.floor(wanted / (how.rows * how.context * row_bytes)))


def _tokenizer_hash(tokenizer: Any) -> str | None:
    """What text becomes depends on it; settings of single calls (padding, truncation) do not count."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    content = {key: x for key, x in content.items() if key not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
