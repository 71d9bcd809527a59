"""Random contexts: the prompt with other words, between the same first and last token.

What a component does on them it does for any prompt that ends like this one; what it does beyond
them is about this prompt.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import PromptError, RunError
from interp.models.model import Model

__all__ = ["contexts", "one_prompt"]


def one_prompt(model: Model, prompt: Any) -> Int[Tensor, " pos"]:
    """The real token ids of a single prompt.

    Raises:
        PromptError: several prompts, or one too short to have a context.
    """
    batch = model.batch(prompt)
    if len(batch) != 1:
        raise PromptError(
            f"scan() was given {len(batch)} prompts; expected one: scan them one by one."
        )
    ids = batch.ids[0][batch.mask[0]].cpu()
    if len(ids) < 3:
        raise PromptError(
            f"this prompt has {len(ids)} tokens; expected at least 3, so that something stands between "
            "the first and the last."
        )
    return ids


def contexts(
    model: Model, ids: Int[Tensor, " pos"], *, draws: int, seed: int
) -> Int[Tensor, "row pos"]:
    """The prompt in row 0, and ``draws`` random contexts of it.

    Every token but the last, and but special ones such as BOS, is replaced by one drawn evenly from
    the vocabulary without its special tokens.

    Raises:
        RunError: too few draws to say anything at 5%.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 19:
        raise RunError(
            f"draws={draws!r}; expected at least 19 random contexts: with fewer no finding can be "
            "rarer than 5% under the control."
        )
    special = _special(model)
    ordinary = (~special).nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    drawn = ordinary[torch.randint(len(ordinary), (draws, len(ids)), generator=generator)]
    kept = special[ids]
    kept[-1] = True
    return torch.cat([ids[None], torch.where(kept, ids, drawn)])


def _special(model: Model) -> Bool[Tensor, " vocab"]:
    """Tokens that no text is made of: special ones, and rows of padding behind the tokenizer's."""
    out = torch.zeros(model.d_vocab, dtype=torch.bool)
    if model.tokenizer is not None:
        out[[i for i in model.tokenizer.all_special_ids if i < len(out)]] = True
        out[len(model.tokenizer) :] = True
    return out
