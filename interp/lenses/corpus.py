"""Rows of tokens to tune a lens on, and those held out to say how good it is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.token_batch import TokenBatch

__all__ = ["batches", "hash_of", "rows", "split"]


def rows(model: Model, inputs: Any, *, most: int) -> TokenBatch:
    """What a model runs on, from anything it takes or from an iterable of texts.

    Of an iterable that is no list (a stream of documents) at most ``most`` texts are taken.
    """
    if isinstance(inputs, str | list | tuple | Tensor | TokenBatch | Prompts):
        return model.batch(inputs)
    if not isinstance(inputs, Iterable):
        raise PromptError(
            f"the corpus is a {type(inputs).__name__}; expected texts, rows of token ids, or an "
            "iterable of texts."
        )
    return model.batch(list(islice(iter(inputs), most)))


def split(batch: TokenBatch, *, holdout: float, seed: int) -> tuple[TokenBatch, TokenBatch | None]:
    """Rows to train on and rows held out, drawn by ``seed``; equal rows stand on one side.

    Raises:
        PromptError: nothing is left on one side.
    """
    if not 0 <= holdout < 1:
        raise PromptError(f"holdout={holdout}; expected a share from 0 (none) to below 1.")
    ids = batch.ids.masked_fill(~batch.mask, -1)
    kinds, kind_of = torch.unique(ids, dim=0, return_inverse=True)
    if holdout == 0:
        return batch, None
    count = max(1, math.floor(holdout * len(kinds)))
    if count == len(kinds):
        raise PromptError(
            f"{len(kinds)} different row of text cannot be both trained on and held out "
            f"(holdout={holdout}): give more texts, or holdout=0."
        )
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed))
    held = torch.isin(kind_of.cpu(), order[:count]).to(batch.ids.device)
    return batch.rows((~held).nonzero().flatten()), batch.rows(held.nonzero().flatten())


def batches(count: int, size: int, *, seed: int) -> Iterator[Int[Tensor, " row"]]:
    """Numbers of rows for one step after another, without end: shuffled anew in each pass."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.zeros(0, dtype=torch.long)
    while True:
        while len(left) < min(size, count):
            left = torch.cat([left, torch.randperm(count, generator=generator)])
        yield left[:size]
        left = left[size:]


def hash_of(batch: TokenBatch) -> str:
    """sha256 over the real tokens of each row."""
    digest = hashlib.sha256()
    for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True):
        real = ids[mask].long()
        digest.update(f"{len(real)}:".encode() + real.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
