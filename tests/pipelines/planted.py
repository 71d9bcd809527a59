"""A model whose circuit is known because its weights were written by hand: induction, by two heads.

The stream has four parts: the token, its position, the token before it, and what is said next. Head 0 of
block 0 looks one position back and notes the token there; head 0 of block 1 looks for the position whose note
is the token at hand, and says the token that stands there. The other head of each block does nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from interp.models.hooked import from_weights
from interp.models.model import Model

__all__ = ["CIRCUIT", "VOCAB", "planted", "scrambled"]

VOCAB, N_CTX = 20, 26
D_MODEL = 3 * VOCAB + N_CTX
#: What must be intact under resample ablation: positions and the last token are the same in both runs.
CIRCUIT = {
    "embed->a0.h0<v>", "a0.h0->a1.h0<k>", "embed->a1.h0<v>", "a1.h0->logits",
}  # fmt: skip
_FIELDS = {
    "n_layers": 2, "n_heads": 2, "d_model": D_MODEL, "d_head": N_CTX, "d_mlp": 4, "n_ctx": N_CTX,
    "d_vocab": VOCAB, "d_vocab_out": VOCAB, "act_fn": "relu", "normalization_type": None,
    "attention_dir": "causal", "attn_only": True,
}  # fmt: skip
_TOKEN, _POSITION = slice(0, VOCAB), slice(VOCAB, VOCAB + N_CTX)
_BEFORE = slice(VOCAB + N_CTX, 2 * VOCAB + N_CTX)
_SAID = slice(2 * VOCAB + N_CTX, None)
_SHARP = 60.0


def _empty() -> dict[str, Tensor]:
    """Weights of zeros, by TransformerLens's names."""
    weights = {
        "embed.W_E": torch.zeros(VOCAB, D_MODEL), "pos_embed.W_pos": torch.zeros(N_CTX, D_MODEL),
        "unembed.W_U": torch.zeros(D_MODEL, VOCAB), "unembed.b_U": torch.zeros(VOCAB),
    }  # fmt: skip
    for layer in range(2):
        own = f"blocks.{layer}.attn."
        for name in ("W_Q", "W_K", "W_V"):
            weights[own + name] = torch.zeros(2, D_MODEL, N_CTX)
        for name in ("b_Q", "b_K", "b_V"):
            weights[own + name] = torch.zeros(2, N_CTX)
        weights[own + "W_O"] = torch.zeros(2, N_CTX, D_MODEL)
        weights[own + "b_O"] = torch.zeros(D_MODEL)
    return weights


@cache
def planted() -> Model:
    """The model."""
    weights = _empty()
    token, position = torch.eye(VOCAB), torch.eye(N_CTX)
    weights["embed.W_E"][:, _TOKEN] = token
    weights["pos_embed.W_pos"][:, _POSITION] = position
    weights["unembed.W_U"][_SAID] = 10 * token
    first, second = (
        {name: weights[f"blocks.{layer}.attn.{name}"] for name in ("W_Q", "W_K", "W_V", "W_O")}
        for layer in range(2)
    )
    first["W_Q"][0, _POSITION] = _SHARP * position.roll(-1, dims=1)  # at p, ask for p - 1
    first["W_K"][0, _POSITION] = position
    first["W_V"][0, _TOKEN, :VOCAB] = token
    first["W_O"][0, :VOCAB, _BEFORE] = token
    second["W_Q"][0, _TOKEN, :VOCAB] = _SHARP * token
    second["W_K"][0, _BEFORE, :VOCAB] = token
    second["W_V"][0, _TOKEN, :VOCAB] = token
    second["W_O"][0, :VOCAB, _SAID] = token
    return Model.wrap(from_weights(_FIELDS, weights), None, name="planted")


@cache
def scrambled(seed: int = 0) -> Model:
    """A model of the same shape with random weights: its untrained twin."""
    return random_model(_FIELDS, _empty(), seed)


def random_model(fields: dict[str, Any], shapes: dict[str, Tensor], seed: int) -> Model:
    """A TransformerLens-style model whose weights have the shapes given and are drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: 0.05 * torch.randn(value.shape, generator=generator) for name, value in shapes.items()
    }
    return Model.wrap(from_weights(fields, weights), None, name=f"scrambled {seed}")
