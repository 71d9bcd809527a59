"""Circuits: scores of edges, ACDC and single circuits, beside TransformerLens and whole passes.

    python bench/circuits.py [--quick] [--turns 3] [--threads 1] [--update-readme]

- EAP: every edge's score from one backward pass, beside a HookedTransformer with the hooks of the
  authors' code (:mod:`circuits_peers`); 8 pairs of 16 tokens, the logit difference at the last position.
  Their graph has one input node, the token embedding; scores are compared on the edges of both.
- ACDC: speculated batches beside one removal at a time, and beside a whole forward pass for each.
- Exact scores: each edge ablated, beside a whole forward pass for each edge.
- What a circuit costs: EAP, EAP-IG and circuits of random edges beside the model's own forward pass.

All sides run in one process, one after another in each turn, after an untimed round that compares
values. Ratios are taken within a turn; shown are the median and the smallest and largest.

``make bench-circuits`` runs it and puts the tables into bench/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # the cases lie among the tests

import torch
from circuits_peers import Eap
from machine import described, timed, watched
from peers import hooked
from report import into_readme, seconds, spread, table, told
from rich.console import Console
from settings import Setting, random_pairs, setting
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from interp.discovery.acdc import acdc
from interp.graph import Setting as Circuits
from tests.cases import CASES, load_case

TARGET, TOLERANCE, CPU = 9.0, 1e-5, torch.device("cpu")
TAU = 0.01
NARROW = {"n_layer": 12, "n_head": 4, "n_embd": 128, "vocab_size": 5000}
STEPS = 5
#: Random circuits in a turn, by model: one takes longer than several passes of the model.
CIRCUITS = {"gpt2-small": 4, "4 × 256": 32, "demo": 32}

Times = dict[str, list[float]]
Ways = Mapping[str, Callable[[], Any]]


def take_turns(ways: Ways, turns: int) -> Times:
    """Seconds of every way, in each turn."""
    times: Times = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            times[name].append(timed(way, CPU)[0])
    return times


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest, as a share of the largest number."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


# -- edge attribution patching -----------------------------------------------------------------

EAP = ["model", "edges (theirs)", "ours s", "TL s", "TL / ours", "frozen TL s", "frozen / ours", "target TL / ours",
       "max diff, of largest", "ours peak MB", "TL peak MB", "frozen peak MB"]  # fmt: skip


def eap(one: Setting, turns: int) -> list[str]:
    """Scores of all edges beside TransformerLens."""
    model, pairs, theirs = one.model, one.pairs[0], hooked(one)
    peers = [Eap(theirs, frozen=frozen) for frozen in (False, True)]
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: interp.attribute(model, pairs, "edges", method="eap", progress=False)
    }
    ways |= {peer.name: lambda peer=peer: peer(pairs) for peer in peers}
    ways["ours"]()  # the first call proves the model's graph, once
    memory, found = zip(*(watched(way, CPU) for way in ways.values()), strict=True)
    both, mine = shared(found[0])
    worst = max(difference(own[both], mine) for own in found[1:])
    if worst > TOLERANCE:
        raise SystemExit(f"{one.name}: EAP scores differ by {worst:.1e} of the largest")
    times = take_turns(ways, turns)
    against = [ratios(times[peer.name], times["ours"]) for peer in peers]
    reached = "✓" if statistics.median(against[0]) >= TARGET else "✗"
    return [
        one.name, f"{len(found[0].graph.edges):,} ({int(both.sum()):,})", seconds(times["ours"]),
        seconds(times[peers[0].name]), spread(against[0]), seconds(times[peers[1].name]),
        spread(against[1]), f"≥ {TARGET:g} {reached}" if one.name == "gpt2-small" else "",
        f"{worst:.0e}", *(f"{m / 1e6:.0f}" for m in memory),
    ]  # fmt: skip


def shared(scores: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of TransformerLens's entries are edges, and our scores of those."""
    rows = [i for i, source in enumerate(scores.sources) if source != "pos_embed"]
    both = scores.graph.real[rows]
    return both, scores.values[rows][both].double()


# -- ACDC --------------------------------------------------------------------------------------

ACDC = ["case", "edges (kept)", "runs one by one", "batches (runs)", "ours s", "one by one s", "one by one / ours",
        "whole passes s", "whole passes / ours"]  # fmt: skip


def searches(quick: bool) -> dict[str, tuple[Circuits, set[str] | None]]:
    """What is searched, and the true circuit where it is known."""
    found: dict[str, tuple[Circuits, set[str] | None]] = {}
    for name in ("reverse",) if quick else CASES:
        case = load_case(name)
        prompts = case.prompts()
        own = Circuits.of(case.model(), prompts, metric=case.as_metric("l2"), batch=len(prompts))
        found[f"{name}, l2"] = own, case.edges("resample")
    model = interp.load("demo")
    pairs = interp.prompts.capitals(model, 16, 0)
    found["demo, capitals, kl"] = Circuits.of(model, pairs, metric="kl"), None
    return found


def search(name: str, own: Circuits, truth: set[str] | None, turns: int) -> list[str]:
    """The same circuit by speculation, edge by edge, and by whole passes."""
    plain = whole(own)
    tries = {"tau": TAU if truth is not None else 0.05, "progress": False}
    ways = {
        "ours": lambda: acdc(own, **tries),
        "one by one": lambda: acdc(own, batch=1, **tries),
        "whole passes": lambda: acdc(plain, batch=1, **tries),
    }
    ours, single, slow = (way() for way in ways.values())
    kept = set(ours.graph.names(ours.mask))
    if not (torch.equal(ours.kept, single.kept) and torch.equal(ours.kept, slow.kept)):
        raise SystemExit(f"{name}: speculation kept other edges")
    if truth is not None and kept != truth:
        raise SystemExit(f"{name}: the circuit found is not the true one")
    times = take_turns(ways, turns)
    return [
        name, f"{len(ours.edges):,} ({len(kept)})", str(single.runs), f"{ours.rounds} ({ours.runs})",
        seconds(times["ours"]), seconds(times["one by one"]),
        spread(ratios(times["one by one"], times["ours"])), seconds(times["whole passes"]),
        spread(ratios(times["whole passes"], times["ours"])),
    ]  # fmt: skip


def whole(own: Circuits) -> Circuits:
    """The same, but every variant is a forward pass of the whole model."""
    plain = dataclasses.replace(own, reason="whole passes are timed")
    assert plain.engine.startswith("plain")
    _ = plain.full  # the run that is edited is no part of what is timed
    return plain


# -- exact scores ------------------------------------------------------------------------------

EXACT = ["model", "edges", "ours s", "whole passes s", "passes sampled", "whole passes / ours",
         "max diff, of largest"]  # fmt: skip


def exact(name: str, model: Any, pairs: Any, turns: int, n: int) -> list[str]:
    """Every edge ablated alone; of the whole passes a sample, scaled up."""

    def ours() -> Any:
        return interp.attribute(model, pairs, "edges", method="exact", progress=False)

    plain = whole(Circuits.of(model, pairs))
    times: Times = {"ours": [], "whole": []}
    worst = 0.0
    for turn in range(turns):
        took, scores = timed(ours, CPU)
        times["ours"].append(took)
        edges, values = scores.graph.edges, scores.values[scores.graph.index].double()
        some = random.Random(turn).sample(range(len(edges)), min(n, len(edges)))
        took, found = timed(lambda some=some: singly(plain, some), CPU)
        times["whole"].append(took * len(edges) / len(some))
        worst = max(worst, float((found - values[some]).abs().max() / values.abs().max()))
    if worst > 1e-4:
        raise SystemExit(f"{name}: exact scores differ by {worst:.1e} of the largest")
    return [
        name, f"{len(edges):,}", seconds(times["ours"]), seconds(times["whole"]), str(min(n, len(edges))),
        spread(ratios(times["whole"], times["ours"])), f"{worst:.0e}",
    ]  # fmt: skip


def singly(plain: Circuits, numbers: Sequence[int]) -> torch.Tensor:
    """Effects of single edges, a call for each."""
    effects = []
    for number in numbers:
        kept = plain.graph.full.clone()
        kept[tuple(axis[number] for axis in plain.graph.index)] = False
        effects.append((plain.scores(kept[None])[0] - plain.full).double().mean())
    return torch.stack(effects)


def narrow() -> tuple[Any, Any]:
    """Twelve layers of a small width."""
    torch.manual_seed(0)
    model = interp.load(GPT2LMHeadModel(GPT2Config(**NARROW, initializer_range=0.05)).eval())
    return model, random_pairs(model, 0)


# -- against the model's own pass --------------------------------------------------------------

FLOOR = ["model", "what", "ms", "× a forward pass", "passes that it must make"]


def costs(one: Setting, turns: int) -> list[list[str]]:
    """EAP, EAP-IG and random circuits in units of a forward pass of the same prompts."""
    model, pairs, n = one.model, one.pairs[0], CIRCUITS[one.name]
    own = Circuits.of(model, pairs)
    _ = own.full
    draw = torch.Generator().manual_seed(0)
    kept = (torch.rand(n, *own.graph.full.shape, generator=draw) < 0.5) & own.graph.full

    @torch.no_grad()
    def forward() -> Any:
        return one.hf(input_ids=pairs.clean.ids, logits_to_keep=1)

    def attribute(**options: Any) -> Callable[[], Any]:
        return lambda: interp.attribute(model, pairs, "edges", progress=False, **options)

    ways: dict[str, Callable[[], Any]] = {
        "forward pass, last logits": forward,
        "EAP": attribute(method="eap"),
        f"EAP-IG, {STEPS} steps": attribute(method="eap-ig", steps=STEPS),
        f"{n} circuits of half the edges, each": lambda: own.scores(kept),
    }
    for way in ways.values():
        way()
    times = take_turns(ways, turns)
    base, *rest = times
    times[rest[-1]] = [took / n for took in times[rest[-1]]]
    least = ("1", "3", str(2 + 2 * STEPS), "1")
    return [
        [one.name, name, f"{statistics.median(took) * 1e3:.1f}", spread(ratios(took, times[base])), passes]
        for (name, took), passes in zip(times.items(), least, strict=True)
    ]  # fmt: skip


# -- all of it ---------------------------------------------------------------------------------


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small models, one case, 2 turns")
    parser.add_argument("--turns", type=int, help="3, small models twice as many; 2 with --quick")
    parser.add_argument(
        "--sample", type=int, default=48, help="whole passes in a turn (exact scores)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--update-readme", action="store_true", help="tables into bench/README.md")
    options = parser.parse_args()
    if options.turns is None:
        options.turns = 2 if options.quick else 3
    return options


def measured(options: argparse.Namespace, console: Console) -> list[str]:
    """Notes and tables, in Markdown; each row is printed as soon as it is there."""
    turns = options.turns
    small = turns if options.quick else 2 * turns

    def said(row: list[str]) -> list[str]:
        console.print(" | ".join(row), highlight=False, markup=False, soft_wrap=True)
        return row

    names = ["4 × 256"] if options.quick else ["gpt2-small", "4 × 256"]
    models = {name: setting(name, "cpu") for name in names}
    rows = [
        said(eap(one, turns if name == "gpt2-small" else small)) for name, one in models.items()
    ]
    found = [said(search(name, *rest, turns)) for name, rest in searches(options.quick).items()]
    demo = interp.load("demo")
    of_edges = [
        said(
            exact(
                "demo, capitals", demo, interp.prompts.capitals(demo, 16, 0), turns, options.sample
            )
        )
    ]
    if not options.quick:
        of_edges.append(said(exact("12 × 128, 4 heads", *narrow(), 2, options.sample)))
    floor: list[list[str]] = []
    for name, one in [*models.items(), ("demo", setting("demo", "cpu"))]:
        floor += [said(row) for row in costs(one, turns if name == "gpt2-small" else small)]
    notes = [
        f"shown: medians over {turns} turns ({small} of small models; smallest–largest); one process, "
        "one after another in each turn; values compared first",
        f"gpt2-small, 4 × 256: {models[names[-1]].hf.__class__.__name__} of random weights, 8 pairs × "
        "16 tokens, the logit difference at the last position; demo: the shipped weights",
        "TL: HookedTransformer with split q/k/v inputs, attention results and MLP inputs and the hooks of "
        "EAP-IG's code, weights with gradients (its default); frozen: without. It has one input node",
        f"ACDC: τ {TAU:g} on cases, 0.05 on the demo model; the circuits of cases are the true ones; a "
        "whole pass is one variant, from the embeddings to the logits",
        "exact: of the whole passes a sample of edges, new in each turn, scaled up",
        "passes that it must make: a backward pass with frozen weights costs about as much as a forward "
        "pass; what a pair shares at its start is not run again (the demo model's pairs do)",
    ]
    return [
        "\n".join(f"- {note}" for note in notes), table(EAP, rows), table(ACDC, found),
        table(EXACT, of_edges), table(FLOOR, floor, left=2),
    ]  # fmt: skip


def main() -> None:
    options = parsed()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    console = Console(width=max(Console().width, 200), highlight=False)
    machine = described(CPU, options.threads)
    console.print(told(machine), soft_wrap=True)
    text = "\n\n".join([told(machine), *measured(options, console)])
    console.print("", text, sep="\n", highlight=False, markup=False, soft_wrap=True)
    if options.update_readme:
        into_readme("circuits.py", text)


if __name__ == "__main__":
    main()
