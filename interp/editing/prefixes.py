"""Texts to put before a prompt, so that what is read there does not hang on one context.

ROME averages the key of a subject, and the loss of its new value, over the prompt alone and behind
some beginnings of text that the model itself makes up (Meng et al. 2022, section 3.1 and the
authors' code: ten of 5 tokens and ten of 10, sampled from the 5 most probable tokens).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError
from interp.models.model import Model
from interp.token_batch import TokenBatch

__all__ = ["sampled_prefixes"]


@torch.no_grad()
def sampled_prefixes(
    model: Model,
    *,
    lengths: Sequence[tuple[int, int]] = ((10, 5), (10, 10)),
    seed: int = 0,
    top: int = 5,
) -> tuple[str, ...]:
    """Texts that the model makes up.

    Args:
        lengths: pairs (how many, of how many tokens).
        seed: which ones.
        top: at each step, sample among this many most probable tokens; special tokens never.

    Raises:
        PromptError: a number is not positive.
    """
    if any(n < 1 or size < 1 for n, size in lengths) or top < 1:
        raise PromptError(
            f"lengths={tuple(lengths)}, top={top}: expected pairs (how many, of how many tokens) of "
            "positive numbers, and a positive top. For no prefixes give prefixes=()."
        )
    generator = torch.Generator().manual_seed(seed)
    rows = [ids for n, size in lengths for ids in _sample(model, n, size, top, generator)]
    return tuple(model.to_string(row).strip() for row in rows)


def _sample(
    model: Model, n: int, size: int, top: int, generator: torch.Generator
) -> list[Int[Tensor, " size"]]:
    """``n`` rows of ``size`` tokens, behind BOS or, where there is none, behind "The"."""
    bos = model.tokens.bos_id
    start = [bos] if bos is not None else model.tokens.encode("The").ids[0].tolist()
    ids = torch.tensor([start] * n, device=model.device)
    special = torch.tensor(sorted(model.tokens.special_ids), dtype=torch.long, device=ids.device)
    for _ in range(size):
        logits = model.run(TokenBatch.of(ids), logits="last").logits[:, 0].float()
        best = logits.index_fill(-1, special, -torch.inf).topk(top, dim=-1)
        # Drawn on the CPU: one seed, one text, on whatever device.
        drawn = torch.multinomial(best.values.softmax(-1).cpu(), 1, generator=generator)
        ids = torch.cat([ids, best.indices.gather(1, drawn.to(ids.device))], dim=1)
    return list(ids[:, len(start) :].cpu())
