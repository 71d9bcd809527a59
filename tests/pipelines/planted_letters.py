"""A model that answers multiple choice by weights written by hand, with two directions of q and k and three of v.

A prompt is ``subject (option . . label) x 4 END``; subjects and their options are points of a circle, so
two numbers say which. Head 0 of block 0 notes at each label the option before it. Head 1 of block 0 tells every
position the subject: the *content gatherer*. Head 0 of block 1 looks for the label whose note is the subject's
and says it: the *correct letter* head. The other head of block 1 does nothing.
"""

from __future__ import annotations

import math
import random
from functools import cache

import torch
from torch import Tensor

from interp.models.hooked import from_weights
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.token_batch import TokenBatch
from tests.pipelines.planted import random_model

__all__ = ["GATHERER", "LOGIT", "WRITER", "directions", "planted", "questions", "scrambled"]

GATHERER, WRITER = (0, 1), (1, 0)
#: Of the right letter; the others' are 0.
LOGIT = 10.0
_LABELS, _CONTENTS, _N_CTX = 4, 8, 18
_FILLER, _END = _LABELS + 2 * _CONTENTS, _LABELS + 2 * _CONTENTS + 1
_VOCAB = _END + 1
_POSITION, _LABEL = slice(0, _N_CTX), slice(_N_CTX, _N_CTX + _LABELS)
_SUBJECT, _OPTION, _ASKED, _NOTE = (slice(i, i + 2) for i in range(22, 30, 2))
_SAID = slice(30, 30 + _LABELS)
_D_MODEL = 30 + _LABELS
_FIELDS = {
    "n_layers": 2, "n_heads": 2, "d_model": _D_MODEL, "d_head": _N_CTX, "d_mlp": 4, "n_ctx": _N_CTX,
    "d_vocab": _VOCAB, "d_vocab_out": _VOCAB, "act_fn": "relu", "normalization_type": None,
    "attention_dir": "causal", "attn_only": True,
}  # fmt: skip
_SHARP = 400.0


def _empty() -> dict[str, Tensor]:
    """Weights of zeros, by TransformerLens's names."""
    weights = {
        "embed.W_E": torch.zeros(_VOCAB, _D_MODEL),
        "pos_embed.W_pos": torch.zeros(_N_CTX, _D_MODEL),
        "unembed.W_U": torch.zeros(_D_MODEL, _VOCAB), "unembed.b_U": torch.zeros(_VOCAB),
    }  # fmt: skip
    for layer in range(2):
        own = f"blocks.{layer}.attn."
        for name in ("W_Q", "W_K", "W_V"):
            weights[own + name] = torch.zeros(2, _D_MODEL, _N_CTX)
        for name in ("b_Q", "b_K", "b_V"):
            weights[own + name] = torch.zeros(2, _N_CTX)
        weights[own + "W_O"] = torch.zeros(2, _N_CTX, _D_MODEL)
        weights[own + "b_O"] = torch.zeros(_D_MODEL)
    return weights


def directions(part: str) -> Tensor:
    """Orthonormal rows, askew to the axes, in which the writer's q and k, or v, lie."""
    generator = torch.Generator().manual_seed(0 if part in "qk" else 1)
    drawn = torch.randn(_N_CTX, 2 if part in "qk" else _LABELS, generator=generator)
    return torch.linalg.qr(drawn).Q.T.contiguous()


@cache
def planted() -> Model:
    """The model."""
    weights = _empty()
    angle = torch.arange(_CONTENTS) * (2 * math.pi / _CONTENTS)
    circle, position = torch.stack([angle.cos(), angle.sin()], 1), torch.eye(_N_CTX)
    weights["embed.W_E"][:_LABELS, _LABEL] = torch.eye(_LABELS)
    weights["embed.W_E"][_LABELS : _LABELS + _CONTENTS, _SUBJECT] = circle
    weights["embed.W_E"][_LABELS + _CONTENTS : _FILLER, _OPTION] = circle
    weights["pos_embed.W_pos"][:, _POSITION] = position
    weights["unembed.W_U"][_SAID, :_LABELS] = LOGIT * torch.eye(_LABELS)
    first, second = (
        {name: weights[f"blocks.{layer}.attn.{name}"] for name in ("W_Q", "W_K", "W_V", "W_O")}
        for layer in range(2)
    )
    first["W_Q"][0, _POSITION] = _SHARP * position.roll(-3, dims=1)  # at p, ask for p - 3
    first["W_K"][0, _POSITION] = position
    first["W_V"][0, _OPTION, :2] = first["W_O"][0, :2, _NOTE] = torch.eye(2)
    first["W_Q"][1, _POSITION, 0] = _SHARP  # everywhere, ask for the first position
    first["W_K"][1, 0, 0] = 1.0
    first["W_V"][1, _SUBJECT, :2] = first["W_O"][1, :2, _ASKED] = torch.eye(2)
    second["W_Q"][0, _ASKED] = _SHARP * directions("q")
    second["W_K"][0, _NOTE] = directions("k")
    second["W_V"][0, _LABEL] = directions("v")
    second["W_O"][0, :, _SAID] = directions("v").T
    return Model.wrap(from_weights(_FIELDS, weights), None, name="planted letters")


@cache
def scrambled(seed: int = 0) -> Model:
    """A model of the same shape with random weights: its untrained twin."""
    return random_model(_FIELDS, _empty(), seed)


def questions(n: int, *, seed: int = 0) -> Prompts:
    """``n`` questions, with one of the wrong letters as a foil."""
    source = random.Random(seed)
    rows, right, wrong = [], [], []
    for _ in range(n):
        contents = source.sample(range(_CONTENTS), _LABELS)
        correct, other = source.sample(range(_LABELS), 2)
        listed = [
            token
            for label, content in enumerate(contents)
            for token in (_LABELS + _CONTENTS + content, _FILLER, _FILLER, label)
        ]
        rows.append([_LABELS + contents[correct], *listed, _END])
        right.append(correct)
        wrong.append(other)
    places = torch.tensor(right)
    return Prompts(
        clean=TokenBatch.of(torch.tensor(rows)),
        answers=places[:, None],
        foils=torch.tensor(wrong)[:, None],
        positions={
            "subject": torch.zeros_like(places),
            **{"ABCD"[i]: torch.full_like(places, 4 * i + 4) for i in range(_LABELS)},
            **{f"option_{'ABCD'[i]}": torch.full_like(places, 4 * i + 1) for i in range(_LABELS)},
            "correct": 4 * places + 4,
            "correct_option": 4 * places + 1,
        },
    )  # fmt: skip
