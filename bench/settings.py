"""What is measured: the models, the pairs, the sweeps and the targets.

Weights and tokens are random, but for the demo model, which is the shipped one on its own task.
Each setting has 8 pairs of 16 tokens; the score is the logit difference at the last position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

import interp

PAIRS, POSITIONS = 8, 16
SHAPES = {
    "gpt2-small": {"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257},
    "4 × 256": {"n_layer": 4, "n_head": 8, "n_embd": 256, "n_inner": 1024, "vocab_size": 5000},
}
NODES = ("resid_pre", "attn_out", "mlp_out")

Cell = tuple[str, int, int]  # a point, a layer, and a position (of a head's z: the head)


@dataclass(frozen=True)
class Sweep:
    """A sweep; the targets are peer's time / ours, by setting.

    ``shared`` is how many tokens at the start a pair has in common, ``gradient`` whether it is
    attribution patching, and ``rival`` the one peer it is compared with, if not all.
    """

    name: str
    points: tuple[str, ...]
    targets: Mapping[str, float] = field(default_factory=dict)
    shared: int = 0
    gradient: bool = False
    rival: str = ""

    @property
    def sites(self) -> str | list[str]:
        named = ["L*.H*.z" if point == "z" else f"L*.{point}" for point in self.points]
        return named[0] if len(named) == 1 else named

    def cells(self, setting: Setting) -> list[Cell]:
        """Every cell, in the order of ``values.flatten()``."""
        last = setting.model.n_heads if self.points == ("z",) else POSITIONS
        layers = range(setting.model.n_layers)
        return [(point, layer, i) for point in self.points for layer in layers for i in range(last)]


DEMO, TUNED = "TransformerLens, as its demo", "TransformerLens, tuned"
SWEEPS = (
    Sweep("resid_pre", ("resid_pre",), {"gpt2-small": 7.5, "4 × 256": 5.5}),
    Sweep("block_every", NODES, {"gpt2-small": 8.5, "4 × 256": 7.5}),
    Sweep("heads z", ("z",), {"gpt2-small": 4.5, "4 × 256": 3.2}),
    Sweep("resid_pre, 5 of 16 tokens shared", ("resid_pre",), {"gpt2-small": 13}, shared=5),
    *(
        Sweep(f"attribution, {name}", points, targets, gradient=True, rival=rival)
        for rival, targets in ((DEMO, dict.fromkeys(SHAPES, 2.5)), (TUNED, {}))
        for name, points in (("block_every", NODES), ("heads z", ("z",)))
    ),
)
CACHED_TARGET = 1.05  # × a plain Hugging Face forward pass, at most


@dataclass(frozen=True)
class Setting:
    """A model and its pairs, by the number of tokens they share at least."""

    name: str
    model: interp.Model
    pairs: Mapping[int, interp.Prompts]

    @property
    def hf(self) -> PreTrainedModel:
        return self.model.hf

    @property
    def whole(self) -> bool:
        """Whether the model is small enough to compare every cell with the peers."""
        return self.name != "gpt2-small"

    def __str__(self) -> str:
        model = self.model
        weights = "the shipped weights, IOI" if self.name == "demo" else "random weights"
        return (
            f"{self.name}: {type(self.hf).__name__}, {model.n_layers} layers, {model.n_heads} "
            f"heads, width {model.d_model}, vocabulary {model.d_vocab}, {weights}"
        )


def setting(name: str, device: str) -> Setting:
    """A model on the device, and its pairs."""
    if name == "demo":
        model = interp.load("demo", device=device)
        drawn = interp.prompts.ioi(model, n=64, seed=0)
        fitting = (drawn.clean.mask.sum(-1) == POSITIONS).nonzero().flatten()[:PAIRS]
        # Rebuilt from their tokens: a subset keeps the padding of the longest prompt.
        pairs = model.prompts(
            drawn.clean.ids[fitting][drawn.clean.mask[fitting]].view(PAIRS, POSITIONS),
            drawn.corrupted.ids[fitting][drawn.corrupted.mask[fitting]].view(PAIRS, POSITIONS),
            answers=drawn.answers[fitting],
            foils=drawn.foils[fitting],
        )
        return Setting(name, model, {0: pairs})
    torch.manual_seed(0)
    # Larger than GPT-2's 0.02, so that attention is not flat and every patch has an effect.
    hf = GPT2LMHeadModel(GPT2Config(**SHAPES[name], initializer_range=0.05)).eval().to(device)
    model = interp.load(hf)
    return Setting(name, model, {shared: random_pairs(model, shared) for shared in (0, 5)})


def random_pairs(model: interp.Model, shared: int) -> interp.Prompts:
    """Pairs of random tokens that have some at the start in common."""
    draw = torch.Generator().manual_seed(1)
    clean, corrupted = torch.randint(model.d_vocab, (2, PAIRS, POSITIONS), generator=draw)
    corrupted[:, :shared] = clean[:, :shared]
    answers = torch.randperm(model.d_vocab, generator=draw)[: 2 * PAIRS].view(2, PAIRS, 1)
    return model.prompts(clean, corrupted, answers=answers[0], foils=answers[1])
