"""Patching sweeps side by side with TransformerLens and nnsight.

    python bench/patch.py [--quick | --small | --gpt2 | --demo] [--full] [--json PATH] [--update-readme]

8 pairs of 16 tokens, the logit difference at the last position, all sides interleaved in one
process. A turn runs our whole sweep, and of the peers a random subset of cells, scaled up
(their cells cost alike; ``--full`` runs each peer's whole sweep, once). Every side's time holds
its clean run, ours both baselines, too. Before the turns an untimed round compares the values
and watches the memory. The ratio is taken within each turn; shown are the median and the
smallest and largest. ``ours / floor`` sets our time beside the least arithmetic that an exact
sweep needs (:mod:`floor`) at the speed of a matrix product measured in the same turn.

``make bench-patch`` runs all of it and puts the tables into bench/README.md.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from floor import floor, matmul_rate
from machine import described, timed, watched
from peers import Attribution, Peer, hooked, peers
from report import Cached, Report, Row, into_readme, seconds, spread, told
from rich.console import Console
from settings import CACHED_TARGET, NODES, SHAPES, SWEEPS, TUNED, Cell, Setting, Sweep, setting

import interp


def ours(setting: Setting, sweep: Sweep) -> Callable[[], Any]:
    """Our side of a sweep, by the public verbs."""
    pairs = setting.pairs[sweep.shared]
    if sweep.gradient:
        return lambda: interp.attribute(setting.model, pairs, sweep.sites, method="gradient")
    return lambda: interp.patch(setting.model, pairs, sweep.sites, progress=False)


def their_sweep(peer: Peer, setting: Setting, sweep: Sweep, cells: Sequence[Cell]) -> torch.Tensor:
    peer.prepare(setting.pairs[sweep.shared], sweep)
    return peer.values(cells)


def their_seconds(peer: Peer, setting: Setting, sweep: Sweep, cells: Sequence[Cell]) -> float:
    """Seconds of the whole sweep, from those of some of its cells."""
    device, pairs = setting.model.device, setting.pairs[sweep.shared]
    prepared, _ = timed(lambda: peer.prepare(pairs, sweep), device)
    ran, _ = timed(lambda: peer.values(cells), device)
    return prepared + ran * len(sweep.cells(setting)) / len(cells)


def sample(cells: Sequence[Cell], n: int, seed: int) -> list[Cell]:
    """Some cells at random, in their order; a new draw for each turn."""
    chosen = random.Random(seed).sample(range(len(cells)), min(n, len(cells)))
    return [cells[number] for number in sorted(chosen)]


def start(setting: Setting, sweep: Sweep) -> tuple[Row, torch.Tensor]:
    """Our untimed round: a row without times, and our values."""
    call = ours(setting, sweep)
    memory, result = watched(call, setting.model.device)
    values = result.values.detach().flatten().cpu()
    cells, pairs = sweep.cells(setting), setting.pairs[sweep.shared]
    if len(values) != len(cells):
        raise SystemExit(f"{sweep.name}: {len(values)} values of ours, {len(cells)} cells.")
    row = Row(
        setting.name, sweep.name, len(cells), getattr(result, "engine", "gradient"),
        sweep.targets.get(setting.name), flops=floor(sweep, setting, pairs),
        scale=float(values.max() - values.min()), memory={"ours": memory},
    )  # fmt: skip
    return row, values


def measure(
    setting: Setting, sweep: Sweep, sides: Sequence[Peer], options: argparse.Namespace
) -> Row:
    """A sweep of ours beside the peers'."""
    cells, device = sweep.cells(setting), setting.model.device
    row, values = start(setting, sweep)
    n = len(cells) if options.full else options.cells or (48 if setting.whole else 12)
    some = cells if setting.whole and not options.quick else sample(cells, n, seed=0)
    mine = dict(zip(cells, values.tolist(), strict=True))
    row.compared = len(some)
    for peer in sides:
        row.memory[peer.name], got = watched(
            lambda peer=peer: their_sweep(peer, setting, sweep, some), device
        )
        expected = torch.tensor([mine[cell] for cell in some])
        row.differences[peer.name] = float((got - expected).abs().max())
        row.theirs[peer.name] = []
    for turn in range(options.repeats):
        turns = sample(cells, n, seed=turn + 1)
        row.sampled = len(turns) if len(turns) < len(cells) else None
        time_ours(row, setting, sweep)
        for peer in sides:
            row.theirs[peer.name].append(their_seconds(peer, setting, sweep, turns))
    return row


def time_ours(row: Row, setting: Setting, sweep: Sweep) -> None:
    row.ours.append(timed(ours(setting, sweep), setting.model.device)[0])
    row.floor.append(row.flops / matmul_rate(setting.model))


def measure_gradient(
    setting: Setting, sweep: Sweep, side: Attribution, options: argparse.Namespace
) -> Row:
    """Attribution patching of ours beside TransformerLens's: every cell, every turn."""
    pairs, device = setting.pairs[sweep.shared], setting.model.device
    row, values = start(setting, sweep)
    row.memory[side.name], got = watched(lambda: side.run(pairs, sweep), device)
    row.compared, row.differences = len(got), {side.name: float((got - values).abs().max())}
    row.theirs[side.name] = []
    for _ in range(options.repeats):
        time_ours(row, setting, sweep)
        row.theirs[side.name].append(timed(lambda: side.run(pairs, sweep), device)[0])
    return row


def measure_cached(setting: Setting, sides: Sequence[Peer], repeats: int) -> Cached:
    """Keeping the residual stream and the branches of each layer, after two rounds of warm-up."""
    ids = setting.pairs[0].clean.ids.to(setting.model.device)
    sites = [f"L*.{point}" for point in NODES]

    @torch.no_grad()
    def plain() -> Any:
        return setting.hf(ids)

    ways: dict[str, Callable[[], Any]] = {
        "Hugging Face, plain": plain,
        "ours": lambda: setting.model.run(ids, save=sites),
        **{peer.name: lambda peer=peer: peer.forward(ids) for peer in sides},
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 2):
        for name, way in ways.items():
            took, _ = timed(way, setting.model.device)
            if turn >= 2:
                times[name].append(took)
    return Cached(setting.name, times, CACHED_TARGET)


def measure_all(setting: Setting, report: Report, options: argparse.Namespace) -> None:
    """Every sweep of one model."""
    console, theirs = options.console, hooked(setting)
    sides = peers(setting, theirs)
    report.note(str(setting), *(side.how for side in sides))
    for sweep in SWEEPS:
        if sweep.shared not in setting.pairs or options.only not in sweep.name:
            continue
        if sweep.gradient and not hasattr(interp, "attribute"):
            console.print(f"{setting.name}, {sweep.name}: skipped, interp.attribute is not there")
            continue
        if sweep.gradient:
            side = Attribution(theirs, tuned=sweep.rival == TUNED)
            report.note(side.how)
            row = measure_gradient(setting, sweep, side, options)
        else:
            row = measure(setting, sweep, sides, options)
        report.rows.append(row)
        ratio = spread(row.ratios(row.first))
        console.print(
            f"{row.model}, {row.sweep}: {seconds(row.ours)} s ({row.engine}), {row.first} × {ratio}"
        )
        save(report, options)
    if options.only in "cached":
        report.cached.append(measure_cached(setting, sides, 4 * options.repeats))
        save(report, options)


def save(report: Report, options: argparse.Namespace) -> None:
    if options.json is not None:
        report.write(options.json)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="4 × 256 only, 3 turns, few cells")
    which.add_argument("--small", action="store_true", help="4 × 256 only")
    which.add_argument("--gpt2", action="store_true", help="GPT-2-small's shape only")
    which.add_argument("--demo", action="store_true", help="the demo model only")
    parser.add_argument("--only", default="", help="only sweeps whose name holds this")
    parser.add_argument("--repeats", type=int, help="turns; 5, or 1 with --full, 3 with --quick")
    parser.add_argument("--cells", type=int, help="peers' cells in a turn; 12, small models 48")
    parser.add_argument("--full", action="store_true", help="peers run whole sweeps, once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write everything measured here")
    parser.add_argument("--update-readme", action="store_true", help="tables into bench/README.md")
    options = parser.parse_args()
    if options.repeats is None:
        options.repeats = 1 if options.full else 3 if options.quick else 5
    if options.quick and options.cells is None:
        options.cells = 8
    options.console = Console(width=max(Console().width, 200), highlight=False)
    return options


def main() -> None:
    options = parsed()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    names = [*SHAPES, "demo"]
    if options.quick or options.small:
        names = ["4 × 256"]
    elif options.gpt2:
        names = ["gpt2-small"]
    elif options.demo:
        names = ["demo"]
    notes = [
        f"shown: medians over {options.repeats} turns (smallest–largest); where peers ran fewer "
        "cells, new ones at random in each turn, the seconds of their whole sweep are scaled up"
    ]
    report = Report(described(torch.device(options.device), options.threads), notes)
    options.console.print(told(report.machine), soft_wrap=True)
    for name in names:
        measure_all(setting(name, options.device), report, options)
    options.console.print("", *(f"- {note}" for note in report.notes), sep="\n")
    report.show(options.console)
    options.console.print(report.markdown(), soft_wrap=True)
    save(report, options)
    if options.update_readme:
        into_readme("patch.py", report.markdown())
    wrong = [f"{row.model}, {row.sweep}" for row in report.rows if not row.agrees]
    if wrong:
        sys.exit(f"values differ from a peer's: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
