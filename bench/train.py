"""Training SAEs, beside SAELens, dictionary_learning, sparsify and the encoder's product alone.

    python bench/train.py [--quick] [--device cuda] [--update-readme]

- Milliseconds of a step (TopK, k 32, batch 4096), all sides in one process, one after another in
  each turn.
- Seconds to a fixed quality: SAEs of the demo model's activations, the same rows in the same order, until
  the fraction of variance unexplained on held-out rows is reached; three seeds. Each library chooses its
  start, normalisation and loss; for SAELens several learning rates are tried, and the best one counts.

``make bench-train`` installs the peers, runs it, and puts the tables into bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

os.environ["TQDM_DISABLE"] = "1"  # the peers' bars

import torch
from machine import described, timed
from report import into_readme, spread, table, told
from rich.console import Console
from torch import Tensor
from train_peers import SITE, Size, rows_of, saelens, sides, trainee

import interp

SIZES = (Size(256, 4096), Size(768, 12288))
CUDA_SIZES = (Size(768, 24576), Size(4096, 131072))
#: Least ratio of a peer's time to ours, for each size; the floor is the other way round.
TARGETS = {
    ("ours", "SAELens"): (5.5, 5.5),
    ("ours", "dictionary_learning"): (4.5, 4.5),
    ("ours", "sparsify"): (1.9, 1.35),
    ("ours, screened", "SAELens"): (7.0, 7.0),
}
FLOORS = (1.9, 1.5)
QUALITY = Size(192, 1024, k=16, batch=2048, steps=300, lr=2e-3)
AIM = 0.05  # FVU on held-out rows
RATES = (3e-4, 1e-3, 2e-3, 4e-3)


def stepping(size: Size, device: torch.device, turns: int) -> dict[str, list[float]]:
    """Seconds of a step, for each side and turn."""
    draw = torch.Generator().manual_seed(0)
    x = superposed(size, draw).to(device)
    every = sides(size, x)
    for step in every.values():
        step(x)
    took: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(turns):
        for name, step in every.items():
            took[name].append(timed(lambda step=step: step(x), device)[0])
    return took


def superposed(size: Size, draw: torch.Generator) -> Tensor:
    """Sparse sums of twice as many directions as there are numbers."""
    directions = torch.randn(2 * size.d_in, size.d_in, generator=draw)
    directions /= directions.norm(dim=-1, keepdim=True)
    on = torch.rand(size.batch, 2 * size.d_in, generator=draw) < 24 / (2 * size.d_in)
    return (on * torch.rand(on.shape, generator=draw)) @ directions


def compared(size: Size, which: int, took: dict[str, list[float]]) -> list[list[str]]:
    """A row for each side."""
    out = []
    for name, times in took.items():
        ratios = [t / o for t, o in zip(times, took["ours"], strict=True)]
        verdicts = []
        for (own, peer), targets in TARGETS.items():
            if peer == name:
                reached = [t / o for t, o in zip(times, took.get(own, []), strict=False)]
                if reached:
                    verdicts.append(judged(reached, targets[which], own))
        if name == "floor":
            against = [o / t for t, o in zip(times, took["ours"], strict=True)]
            good = statistics.median(against) <= FLOORS[which]
            verdicts.append(
                f"ours / floor {spread(against)} ≤ {FLOORS[which]} {'✓' if good else '✗'}"
            )
        out.append([
            str(size), name, f"{statistics.median(times) * 1e3:.1f}", spread(ratios), "; ".join(verdicts)
        ])  # fmt: skip
    return out


def judged(ratios: Sequence[float], target: float, own: str) -> str:
    reached = "✓" if statistics.median(ratios) >= target else "✗"
    shown = "" if own == "ours" else f"{own}: {spread(ratios)} "
    return f"{shown}≥ {target:g} {reached}"


# -- quality ---------------------------------------------------------------------------------


def quality(seeds: int, device: torch.device) -> list[list[str]]:
    """Rows: seconds until the aim, and the error at the end, by side."""
    model = interp.load("demo", device=str(device))
    with tempfile.TemporaryDirectory() as folder:
        store = interp.harvest(
            model, "demo", ["L2.resid_post"], f"{folder}/acts", tokens=300_000, dtype="float32",
            progress=False,
        )  # fmt: skip
        x = store.rows(slice(None))["L2.resid_post"].to(device)
        held, rest = x[:16_384], x[16_384:]
        out: dict[str, list[tuple[float, float]]] = {}
        first = order(rest, 0)
        for lr in RATES:  # the first seed chooses
            out[f"SAELens, lr {lr:g}"] = [run_saelens(first, held, 0, lr)]
        best = min(out, key=lambda name: out[name][0])
        for seed in range(seeds):
            batches = order(rest, seed)
            out.setdefault("ours", []).append(run_ours(batches, held, seed))
            if seed:
                lr = RATES[list(out).index(best)]
                out[best].append(run_saelens(batches, held, seed, lr))
    ratios = [t / o for (t, _), (o, _) in zip(out[best], out["ours"], strict=True)]
    return [
        [name, spread([t for t, _ in found]), spread_fvu([f for _, f in found]),
         f"{spread(ratios)}" if name == best else ""]
        for name, found in out.items()
    ]  # fmt: skip


def spread_fvu(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.4f} ({min(found):.4f}–{max(found):.4f})"


def order(rows: Tensor, seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    places = torch.cat([torch.randperm(len(rows), generator=draw) for _ in range(4)])
    size = QUALITY.batch
    return [rows[places[i * size : (i + 1) * size]] for i in range(QUALITY.steps)]


def run_ours(batches: list[Tensor], held: Tensor, seed: int) -> tuple[float, float]:
    own = trainee(QUALITY, torch.cat(batches[:8]), seed=seed)

    def error() -> float:
        return fvu(own.finished({})(held), held)

    return reached(lambda x: own.step(rows_of(x)), batches, error)


def run_saelens(batches: list[Tensor], held: Tensor, seed: int, lr: float) -> tuple[float, float]:
    torch.manual_seed(seed)
    size = Size(**{**vars(QUALITY), "lr": lr})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer, step = saelens(size, torch.cat(batches[:8]))
    scale = trainer.activation_scaler.scaling_factor

    def error() -> float:
        return fvu(trainer.sae(held * scale) / scale, held)

    return reached(step, batches, error)


@torch.no_grad()
def fvu(guess: Tensor, x: Tensor) -> float:
    return float((guess - x).square().sum() / (x - x.mean(0)).square().sum())


def reached(
    step: Callable[[Tensor], Any], batches: list[Tensor], error: Callable[[], float]
) -> tuple[float, float]:
    """Seconds of training until the aim (infinite if never), and the error at the end."""
    spent, when, at_end = 0.0, float("inf"), float("inf")
    for i, x in enumerate(batches):
        start = time.perf_counter()
        step(x)
        spent += time.perf_counter() - start
        if i % 10 == 9 or i == len(batches) - 1:
            with torch.no_grad():
                at_end = error()
            if at_end <= AIM and when == float("inf"):
                when = spent
    return when, at_end


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer turns, the small size, one seed"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update-readme", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, console = torch.device(given.device), Console()
    sizes = (SIZES if device.type == "cpu" else CUDA_SIZES)[: 1 if given.quick else None]
    machine = described(device, given.threads)
    machine |= {name: version(name) for name in ("sae-lens", "dictionary-learning", "eai-sparsify")}
    rows = []
    for which, size in enumerate(sizes):
        took = stepping(size, device, 2 if given.quick else 5)
        rows += compared(size, which, took)
        console.print(*rows[-len(took) :], sep="\n")
    steps = table(["size", "side", "median ms", "× ours", "target"], rows, left=2)
    found = quality(1 if given.quick else 3, device)
    columns = ["side", f"s to FVU {AIM}", "FVU at the end", "best SAELens / ours"]
    aims = table(columns, found)
    notes = (
        f"- One step: TopK, k {sizes[0].k}, batch {sizes[0].batch}, float32 but where said, sparse sums of "
        "directions as data.\n"
        f"- {SITE} of the second table is the demo model's L2.resid_post: {QUALITY.d_in} → {QUALITY.d_sae}, "
        f"k {QUALITY.k}, batch {QUALITY.batch}, {QUALITY.steps} steps, held-out rows; seconds of training "
        "only; medians and ranges over seeds."
    )
    text = "\n\n".join([told(machine), notes, steps, aims])
    console.print(text, highlight=False, markup=False)
    if given.update_readme:
        into_readme("train.py", text)


if __name__ == "__main__":
    main()
