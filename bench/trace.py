"""Causal tracing side by side with one full forward pass for each cell.

    python bench/trace.py [--quick] [--update-readme]

One prompt of 16 tokens, a subject of three, ten draws of noise; states, MLP and attention outputs
restored at every layer and token (windows of Meng et al.'s share of the depth). The paper's way
runs, for each cell, a batch of one clean and ten corrupted rows and copies the clean row's value
as it passes; "tuned" keeps the clean values, drops the clean row and computes the last position's
logits alone. Both run on the same Hugging Face model with plain hooks, a random subset of cells in
each turn, scaled up (cells cost alike); ours runs the whole trace. Values are compared first.

``make bench-patch`` runs it and puts the table into bench/README.md.
"""

from __future__ import annotations

import argparse
import random
import warnings
from collections.abc import Callable, Sequence

import torch
from machine import described, timed
from report import into_readme, seconds, spread, table, told
from rich.console import Console
from settings import SHAPES, Setting, setting

import interp

SAMPLES, SUBJECT, SEED = 10, (4, 6), 0
POINTS = {"states": "", "mlp": "mlp", "attn": "attn"}

Cell = tuple[str, int, int]  # a kind, a layer, a token


class Paper:
    """Meng et al.'s ``trace_with_patch``, for each cell a forward pass of the whole model."""

    def __init__(self, setting: Setting, ids: torch.Tensor, found: interp.TraceResult, *,
                 tuned: bool) -> None:  # fmt: skip
        self.hf, self.tuned, self.window = setting.hf, tuned, found.window
        self.answer = int(setting.hf(ids).logits[0, -1].argmax())
        draw = torch.Generator().manual_seed(SEED)
        shape = (SAMPLES, SUBJECT[1] + 1 - SUBJECT[0], setting.model.d_model)
        self.noise = (found.std * torch.randn(shape, generator=draw)).to(ids.device)
        self.ids = ids.expand(SAMPLES + (not tuned), -1)
        neox = hasattr(self.hf, "gpt_neox")
        base = self.hf.gpt_neox if neox else self.hf.transformer
        self.embed = base.embed_in if neox else base.wte
        self.blocks = base.layers if neox else base.h
        self.attention = "attention" if neox else "attn"
        self.clean = self._clean(ids) if tuned else {}

    def modules(self, kind: str, layer: int) -> list[torch.nn.Module]:
        """What a cell restores."""
        if kind == "states":
            return [self.blocks[layer]]
        low, high = layer - self.window // 2, layer + (self.window + 1) // 2
        name = self.attention if kind == "attn" else "mlp"
        return [getattr(b, name) for b in self.blocks[max(0, low) : min(len(self.blocks), high)]]

    @torch.no_grad()
    def values(self, cells: Sequence[Cell]) -> torch.Tensor:
        return torch.stack([self._one(*cell) for cell in cells]).cpu()

    def _one(self, kind: str, layer: int, token: int) -> torch.Tensor:
        first, last = SUBJECT
        rows = slice(0 if self.tuned else 1, None)

        def add(module: torch.nn.Module, args: object, out: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[rows, first : last + 1] += self.noise
            return out

        def restore(module: torch.nn.Module, args: object, out: object) -> None:
            x = out[0] if isinstance(out, tuple) else out
            x[rows, token] = self.clean[module][0, token] if self.tuned else x[0, token]

        handles = [self.embed.register_forward_hook(add)]
        handles += [m.register_forward_hook(restore) for m in self.modules(kind, layer)]
        try:
            options = {"logits_to_keep": 1} if self.tuned else {}
            logits = self.hf(self.ids, **options).logits[rows, -1]
        finally:
            for handle in handles:
                handle.remove()
        return logits.softmax(-1)[:, self.answer].mean()

    @torch.no_grad()
    def _clean(self, ids: torch.Tensor) -> dict[torch.nn.Module, torch.Tensor]:
        kept: dict[torch.nn.Module, torch.Tensor] = {}

        def keep(module: torch.nn.Module, args: object, out: object) -> None:
            kept[module] = (out[0] if isinstance(out, tuple) else out).clone()

        wanted = [m for b in self.blocks for m in (b, b.mlp, getattr(b, self.attention))]
        handles = [m.register_forward_hook(keep) for m in wanted]
        self.hf(ids)
        for handle in handles:
            handle.remove()
        return kept


def measure(setting: Setting, repeats: int, n: int) -> list[str]:
    """One row of the table."""
    ids = setting.pairs[0].clean.ids[:1].to(setting.model.device)
    ours: Callable[[], interp.TraceResult] = lambda: interp.trace(  # noqa: E731
        setting.model, ids, subject=SUBJECT, samples=SAMPLES, seed=SEED, progress=False
    )
    device, found = setting.model.device, ours()
    axes = [axis.labels for axis in found.axes]
    cells = [(k, i, t) for k in axes[0] for i in range(len(axes[1])) for t in range(len(axes[2]))]
    sides = [Paper(setting, ids, found, tuned=tuned) for tuned in (False, True)]
    mine = dict(zip(cells, found.values.flatten().tolist(), strict=True))
    some = random.Random(0).sample(cells, min(n, len(cells)))
    expected = torch.tensor([mine[cell] for cell in some])
    worst = max(float((side.values(some) - expected).abs().max()) for side in sides)
    if worst > 1e-5:
        raise SystemExit(f"{setting.name}: values differ by {worst:.1e}")
    times: list[list[float]] = [[], [], []]
    for turn in range(repeats):
        times[0].append(timed(ours, device)[0])
        chosen = random.Random(turn + 1).sample(cells, min(n, len(cells)))
        for side, into in zip(sides, times[1:], strict=True):
            took, _ = timed(lambda side=side, some=chosen: side.values(some), device)
            into.append(took * len(cells) / len(chosen))
    ratios = [[t / o for t, o in zip(side, times[0], strict=True)] for side in times[1:]]
    share = found.work["block_positions"] / found.work["plain_block_positions"]
    return [
        setting.name, f"{len(cells)} ({found.window})", found.engine, seconds(times[0]),
        seconds(times[1]), spread(ratios[0]), seconds(times[2]), spread(ratios[1]),
        f"{share:.1%}", f"{worst:.0e}",
    ]  # fmt: skip


HEAD = ["model", "cells (window)", "engine", "ours s", "paper's way s", "paper / ours", "tuned s",
        "tuned / ours", "positions through blocks", "max diff"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the small models, fewer turns")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cells", type=int, default=16, help="cells of the other sides in a turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--update-readme", action="store_true", help="the table into README.md")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    names = [*([] if options.quick else ["gpt2-small"]), "4 × 256", "demo"]
    assert set(names) <= {*SHAPES, "demo"}
    repeats = 2 if options.quick else options.repeats
    rows = [measure(setting(n, options.device), repeats, options.cells) for n in names]
    facts = described(torch.device(options.device), 1)
    text = f"{told(facts)}\n\n{table(HEAD, rows)}"
    Console(width=250, highlight=False).print(text, soft_wrap=True)
    if options.update_readme:
        into_readme("trace.py", text)


if __name__ == "__main__":
    main()
