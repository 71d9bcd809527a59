"""What reading activations costs, against a plain Hugging Face forward pass.

    python bench/overhead.py [--small] [--repeats 15]

A random model of GPT-2-small's shape (or 4 layers × 256 with ``--small``), 8 × 128 tokens and
1 × 16 tokens, one thread, gradients off everywhere, all sides interleaved. TransformerLens runs
as ``TransformerBridge.run_with_cache`` and nnsight as one trace that saves the residual streams.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version

import torch
from nnsight import NNsight
from rich.console import Console
from rich.table import Table
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel

import interp

SHAPES = {"gpt2-small": (12, 12, 768), "4 × 256": (4, 4, 256)}


def sides(hf: GPT2LMHeadModel, ids: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The ways to run the model on these tokens, the baseline first."""
    model = interp.load(hf, check=False)
    theirs = deepcopy(hf)
    bridge = build_bridge_from_module(theirs, type(theirs).__name__, hf_config=theirs.config)
    wrapped = NNsight(deepcopy(hf))
    layers = range(len(hf.transformer.h))

    def traced() -> None:
        with wrapped.trace(ids):
            for layer in layers:
                wrapped.transformer.h[layer].output.save()

    stream = ["L*.resid_post", "L*.attn_out", "L*.mlp_out"]
    return {
        "Hugging Face, plain (sdpa)": lambda: hf(ids),
        "interp, nothing saved": lambda: model.run(ids),
        "interp, residual stream and branches": lambda: model.run(ids, save=stream),
        "interp, residual stream, no logits": lambda: model.run(
            ids, save="L*.resid_pre", logits="none"
        ),
        "interp, every site (eager attention)": lambda: model.run(ids, save="all"),
        "TransformerLens bridge, every site": lambda: bridge.run_with_cache(ids),
        "nnsight, residual stream": traced,
    }


@torch.no_grad()
def measure(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, interleaved, after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 2):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="4 layers × 256 instead of GPT-2's")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name = "4 × 256" if options.small else "gpt2-small"
    layers, heads, width = SHAPES[name]
    hf = GPT2LMHeadModel(GPT2Config(n_layer=layers, n_head=heads, n_embd=width)).eval()
    console = Console(width=100)
    console.print(f"python bench/overhead.py {' '.join(sys.argv[1:])}".rstrip())
    console.print(f"{name}, 1 thread, torch {torch.__version__}, transformers "
                  f"{version('transformers')}, transformer-lens {version('transformer-lens')}, "
                  f"nnsight {version('nnsight')}")  # fmt: skip
    for batch, length in ((8, 128), (1, 16)):
        ids = torch.randint(0, 50257, (batch, length))
        times = measure(sides(hf, ids), options.repeats)
        base = statistics.median(next(iter(times.values())))
        table = Table(title=f"{batch} × {length} tokens", title_justify="left")
        for column in ("", "median ms", "quartiles ms", "ratio"):
            table.add_column(column, justify="left" if not column else "right")
        for way, seconds in times.items():
            low, middle, high = statistics.quantiles(seconds, n=4)
            table.add_row(way, f"{middle * 1e3:.1f}", f"{low * 1e3:.1f}–{high * 1e3:.1f}",
                          f"{middle / base:.2f}")  # fmt: skip
        console.print(table)


if __name__ == "__main__":
    main()
