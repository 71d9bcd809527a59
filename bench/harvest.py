"""Harvesting, writing and reading activations, beside what each would cost at least and SAELens.

    python bench/harvest.py [--quick] [--update-readme]

- Harvest against a bare Hugging Face forward pass of the same layers on the same rows. A harvest has a
  fixed cost (the forecast and the proof before it starts), so two lengths are run and the difference
  is compared; the fixed cost stands beside it.
- Writing 262,144 × 768 float32 with checksums and fsync, against SAELens's ``CacheActivationsRunner``:
  its own methods that make Arrow shards and put them together, given the same activations.
- Reading 4096 rows in random order, against Hugging Face datasets (Arrow, a row for each activation) and the
  raw memory map with its indices sorted. The files are warm.
- The most memory that a harvest holds, and one 8 times as long.

``make bench-harvest`` runs it and puts the tables into bench/README.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from machine import described, watched
from report import into_readme, seconds, spread, table, told
from rich.console import Console
from settings import setting

import interp
from interp.corpora import Cursor
from interp.store.manifest import Manifest
from interp.store.rows import Rows
from interp.store.store import ActivationStore
from interp.store.writer import Writer

CONTEXT, BATCH = 128, 16
TOKENS, WIDTH, READ = 262_144, 768, 4096
#: For each model: blocks that are run, and batches of the short and of the long harvest.
MODELS = {"gpt2-small": (6, 1, 4), "4 × 256": (2, 4, 24), "demo": (2, 8, 48)}


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# -- harvesting ----------------------------------------------------------------------------


def bare(hf: Any, blocks: int) -> Any:
    """The Hugging Face model without its unembedding and its later blocks; weights are shared."""
    base = copy.copy(hf.base_model)
    base._modules = dict(base._modules)
    name = "h" if "h" in base._modules else "layers"
    base._modules[name] = base._modules[name][:blocks]
    return base


def harvesting(name: str, device: str, repeats: int, *, ragged: bool) -> list[str]:
    """One row: seconds for the batches that the longer harvest has more."""
    model, (blocks, few, many) = setting(name, device).model, MODELS[name]
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, model.d_vocab, (BATCH * many, CONTEXT), generator=draw)
    texts: Any = rows
    if ragged:  # texts of 16 to 128 tokens, several in a row
        lengths = torch.randint(16, CONTEXT + 1, (2 * len(rows),), generator=draw).tolist()
        texts = [torch.randint(0, model.d_vocab, (n,), generator=draw).tolist() for n in lengths]
    base, took = bare(model.hf, blocks), {}

    def harvest(batches: int) -> None:
        share = len(texts) * batches // many
        with folder() as out:
            store = interp.harvest(
                model, texts[:share], f"L{blocks - 1}.resid_post", out / "s", dtype="float32",
                batch=BATCH, packing="isolated" if ragged else "joined", special=True, bos=False,
                progress=False,
            )  # fmt: skip
            took[batches] = sum(record.forwarded for record in store.manifest.shards)

    @torch.no_grad()
    def forward() -> None:
        for start in range(few * BATCH, many * BATCH, BATCH):
            base(rows[start : start + BATCH].to(model.device)).last_hidden_state[0, 0, 0].item()

    ours, floor, fixed = [], [], []
    harvest(few), forward()
    for _ in range(repeats):
        short, long, plain = (
            timed(lambda: harvest(few)),
            timed(lambda: harvest(many)),
            timed(forward),
        )
        more = took[many] - took[few]
        ours.append((long - short) / more)
        floor.append(plain / ((many - few) * BATCH * CONTEXT))
        fixed.append(short - took[few] * ours[-1])
    ratios = [o / f for o, f in zip(ours, floor, strict=True)]
    what = "texts of 16–128 tokens, isolated" if ragged else "full rows"
    return [
        f"{name}, {blocks} blocks", what, f"{1 / statistics.median(ours):,.0f}",
        f"{1 / statistics.median(floor):,.0f}", spread(ratios),
        "" if ragged else verdict(ratios, 1.10, below=True), seconds(fixed),
    ]  # fmt: skip


# -- writing and reading -------------------------------------------------------------------


def plan(tokens: int, dtype: str) -> Manifest:
    return Manifest(
        model="bench", weights_hash="0" * 64, sites={"L6.resid_post": (WIDTH,)}, pairs=(), dtype=dtype,
        corpus={"kind": "bench"}, layout={}, tokens=tokens, seed=0, versions={},
    )  # fmt: skip


def shards(acts: torch.Tensor, ids: torch.Tensor) -> Iterator[Rows]:
    step = 64 * 2**20 // (WIDTH * acts.element_size())
    for start in range(0, len(acts), step):
        place = torch.arange(start, min(start + step, len(acts)))
        part = slice(start, start + step)
        yield Rows({"L6.resid_post": acts[part]}, ids[part], place // CONTEXT, place % CONTEXT)


def write_ours(out: Path, acts: torch.Tensor, ids: torch.Tensor) -> None:
    dtype = str(acts.dtype).removeprefix("torch.")
    with Writer.open(out, plan(len(acts), dtype)) as writer:
        n = 0
        for n, rows in enumerate(shards(acts, ids), start=1):
            writer.write(n - 1, rows, end=Cursor(n, 0, ""), forwarded=len(rows))
        writer.finish(n)


def saelens() -> Any:
    """SAELens's runner as it is, without a model: it is given the activations."""
    from datasets import Array2D, Features, Sequence, Value
    from sae_lens.cache_activations_runner import CacheActivationsRunner

    runner = CacheActivationsRunner.__new__(CacheActivationsRunner)
    rows = 2 * 2**30 // (WIDTH * 4 * CONTEXT) // 2  # its buffer: 2 GB, half of it here
    runner.cfg = SimpleNamespace(
        hook_name="blocks.6.hook_resid_post", d_in=WIDTH, n_seq_in_buffer=rows
    )
    runner.context_size = CONTEXT
    runner.features = Features(
        {
            "blocks.6.hook_resid_post": Array2D(shape=(CONTEXT, WIDTH), dtype="float32"),
            "token_ids": Sequence(Value(dtype="int32"), length=CONTEXT),
        }
    )
    return runner


def write_saelens(out: Path, runner: Any, acts: torch.Tensor, ids: torch.Tensor) -> None:
    """What its ``run`` does with the activations of each buffer."""
    temporary, step = out / ".tmp_shards", runner.cfg.n_seq_in_buffer * CONTEXT
    temporary.mkdir(parents=True)
    for i, start in enumerate(range(0, len(acts), step)):
        part = acts[start : start + step], ids[start : start + step]
        runner.cfg.n_seq_in_buffer = len(part[0]) // CONTEXT
        runner._create_shard(part).save_to_disk(str(temporary / f"shard_{i:05d}"), num_shards=1)
    runner._consolidate_shards(temporary, out, copy_files=False)


def writing(tokens: int, repeats: int) -> list[list[str]]:
    acts, ids = torch.randn(tokens, WIDTH), torch.randint(0, 50257, (tokens,))
    half = acts.bfloat16()
    times: dict[str, list[float]] = {"ours": [], "bf16": [], "SAELens": [], "raw": []}
    for _ in range(repeats + 1):
        with folder() as out:
            times["ours"].append(timed(lambda: write_ours(out / "a", acts, ids)))
            times["SAELens"].append(timed(lambda: write_saelens(out / "b", saelens(), acts, ids)))
            times["bf16"].append(timed(lambda: write_ours(out / "c", half, ids)))
            times["raw"].append(timed(lambda: acts.numpy().tofile(out / "raw")))
    times = {side: t[1:] for side, t in times.items()}
    return [
        against("write, float32, s", times, "ours", "SAELens", "SAELens runner", 2.5),
        against("write, float32, s", times, "ours", "raw", "raw file, no fsync", None, below=True),
        ["write, bfloat16 (SAELens has none), s", seconds(times["bf16"]), "", "", ""],
    ]


def rows_to_arrow(acts: torch.Tensor) -> Any:
    """A data set with a row for each activation: the form in which Arrow shuffles tokens fastest."""
    import pyarrow as pa
    from datasets import Dataset

    values = pa.FixedSizeListArray.from_arrays(pa.array(acts.numpy().ravel()), WIDTH)
    return Dataset(pa.table({"activation": values}))


def reading(tokens: int, repeats: int) -> list[list[str]]:
    from datasets import disable_progress_bars, load_from_disk

    disable_progress_bars()
    acts, ids = torch.randn(tokens, WIDTH), torch.randint(0, 50257, (tokens,))
    sides_ = ("ours", "batches", "bf16", "datasets", "numpy", "raw")
    times: dict[str, list[float]] = {side: [] for side in sides_}
    with folder() as out, warnings.catch_warnings():
        write_ours(out / "a", acts, ids)
        write_ours(out / "c", acts.bfloat16(), ids)
        np.save(out / "raw.npy", acts.numpy())
        store, half = ActivationStore.open(out / "a"), ActivationStore.open(out / "c")
        rows_to_arrow(acts).save_to_disk(str(out / "b"))
        arrow = load_from_disk(str(out / "b"))
        dataset, plain = arrow.with_format("torch"), arrow.with_format("numpy")
        raw = np.load(out / "raw.npy", mmap_mode="r")
        batches = store.batches(READ, epochs=None, prefetch=0)
        draw = torch.Generator().manual_seed(0)
        sides: dict[str, Callable[[torch.Tensor], Any]] = {
            "ours": lambda i: store.rows(i),
            "batches": lambda i: next(batches),
            "bf16": lambda i: half.rows(i),
            "datasets": lambda i: dataset[i.numpy()]["activation"],
            "numpy": lambda i: torch.from_numpy(plain[i.numpy()]["activation"]),
            "raw": lambda i: torch.from_numpy(raw[np.sort(i.numpy())]),
        }
        for i in range(2 * repeats + 4):
            chosen = torch.randperm(tokens, generator=draw)[:READ]
            for side, read in sides.items():
                took = timed(lambda read=read, chosen=chosen: read(chosen))
                if i >= 4:
                    times[side].append(took)
    what = f"read {READ} rows,"
    table = []
    for side, name in (("ours", "store.rows, ms"), ("batches", "store.batches, ms")):
        table += [
            against(f"{what} {name}", times, side, "datasets", "HF datasets, torch format", 5.0),
            against(f"{what} {name}", times, side, "numpy", "HF datasets, numpy format", None),
            against(f"{what} {name}", times, side, "raw", "raw memory map", 2.0, below=True),
        ]
    half_ms = f"{statistics.median(times['bf16']) * 1e3:.3g}"
    return [*table, [f"{what} bfloat16, store.rows, ms", half_ms, "", "", ""]]


def memory(device: str) -> list[list[str]]:
    """Bytes above those before, at the peak, for a harvest and for one 8 times as long."""
    model = setting("demo", device).model

    def harvest(tokens: int) -> int:
        with folder() as out:
            call = lambda: interp.harvest(  # noqa: E731
                model, "demo", ["L1.mlp", "L2.resid_post"], out / "s", dtype="float32",
                tokens=tokens, batch=BATCH, shard_mib=16, progress=False,
            )  # fmt: skip
            return watched(call, torch.device(device))[0]

    harvest(2000)
    few, many = harvest(25_000), harvest(200_000)
    return [
        ["peak memory, demo, 25,000 rows, MB", f"{few / 1e6:.0f}", "", "", ""],
        ["peak memory, demo, 200,000 rows, MB", f"{many / 1e6:.0f}", "", f"{many / few:.2f}", ""],
    ]


def against(
    what: str, times: dict[str, list[float]], side: str, peer: str, name: str, target: float | None, *,
    below: bool = False,
) -> list[str]:  # fmt: skip
    """A row: our seconds (or milliseconds), the peer's, and the ratio that the target is about."""
    ours, theirs = times[side], times[peer]
    scale = 1e3 if what.endswith("ms") else 1.0
    pairs = zip(ours, theirs, strict=True)
    ratios = [o / t if below else t / o for o, t in pairs]
    shown = [f"{statistics.median(t) * scale:.3g}" for t in (ours, theirs)]
    return [
        what, shown[0], f"{name} {shown[1]}", f"{'ours / peer' if below else 'peer / ours'} {spread(ratios)}",
        "" if target is None else verdict(ratios, target, below=below),
    ]  # fmt: skip


def verdict(ratios: list[float], target: float, *, below: bool = False) -> str:
    middle = statistics.median(ratios)
    reached = middle <= target if below else middle >= target
    return f"{'≤' if below else '≥'} {target:g} {'✓' if reached else '✗'}"


FORWARD = ["model", "rows", "harvest tokens/s", "bare forward tokens/s", "harvest / bare", "target",
           "fixed s"]  # fmt: skip
DISK = ["", "ours", "peer", "ratio", "target"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the small models, fewer turns")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--update-readme", action="store_true", help="the tables into README.md")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    repeats, tokens = (2, TOKENS // 8) if options.quick else (options.repeats, TOKENS)
    facts = described(torch.device(options.device), 1)
    names = [name for name in MODELS if not (options.quick and name == "gpt2-small")]
    forward = [harvesting(name, options.device, repeats, ragged=False) for name in names]
    forward += [harvesting(n, options.device, repeats, ragged=True) for n in names[-2:]]
    disk = writing(tokens, repeats) + reading(tokens, repeats) + memory(options.device)
    head = [f"{tokens:,} × {WIDTH}", *DISK[1:]]
    facts |= {name: version(name) for name in ("sae-lens", "datasets")}
    text = f"{told(facts)}\n\n{table(FORWARD, forward)}\n\n{table(head, disk)}"
    Console(width=250, highlight=False).print(text, soft_wrap=True)
    if options.update_readme:
        into_readme("harvest.py", text)


if __name__ == "__main__":
    main()
