"""Induction: after ``A B … A`` comes ``B``, whatever A and B are.

Random tokens are repeated once, and the last one is left for the model to predict:
``BOS  x1 … A B  x1 … A`` → ``B``. No weight can know random tokens, so a model that
is right must have looked back (Olsson et al. 2022, arXiv:2209.11895). In the
corrupted prompt another token stands in B's place, so that the answer changes; or in A's
place, so that nothing says that B came after A.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError
from interp.prompts.pairs import build
from interp.prompts.prompts import Prompts
from interp.tokens import Tokenization

__all__ = ["HasTokens", "induction"]


@runtime_checkable
class HasTokens(Protocol):
    """A model, as far as prompts care."""

    @property
    def tokens(self) -> Tokenization: ...


def induction(
    model: HasTokens,
    n: int = 64,
    seed: int = 0,
    *,
    period: int = 20,
    corrupt: Literal["answer", "cue", "both"] = "answer",
) -> Prompts:
    """``n`` sequences of ``period`` random tokens, then the same again but for the last.

    Works on ids alone, so on models without a tokenizer too. Special tokens are never
    drawn, and no token comes twice within a period.

    Args:
        model: whose vocabulary and BOS token are used.
        n: how many prompts.
        seed: which tokens.
        period: how far back the answer stands; prompts have ``2 * period - 1`` tokens
            and BOS if there is one.
        corrupt: which token differs in the corrupted prompt: ``"answer"`` the first B, so that
            another token is right there (the foil); ``"cue"`` the first A, so that the match
            is broken and B itself stays: what a previous-token head tells the keys of
            induction heads. The foil then stands nowhere in the prompts. ``"both"``: neither the
            match nor what it leads to is left.

    Positions: ``A1`` (the first A), ``B1`` (what followed it) and ``END`` (the second A).
    """
    if corrupt not in ("answer", "cue", "both"):
        raise PromptError(f"corrupt={corrupt!r}, expected 'answer', 'cue' or 'both'.")
    tokens = model.tokens
    pool = _ordinary_ids(tokens)
    if n < 1 or period < 2 or len(pool) <= period + 1:
        raise PromptError(
            f"induction got n={n}, period={period} over {len(pool)} ordinary tokens, expected "
            f"n ≥ 1 and 2 ≤ period < {len(pool) - 1}. Try n=64, period=20."
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randperm(len(pool), generator=generator) for _ in range(n)])
    drawn = pool[drawn[:, : period + 2]]
    once, other, another = drawn[:, :period], drawn[:, period], drawn[:, period + 1]
    clean = torch.cat([once, once[:, :-1]], dim=1)
    corrupted = clean.clone()
    if corrupt != "cue":
        corrupted[:, period - 1] = other
    if corrupt != "answer":
        corrupted[:, period - 2] = another
    start = [] if tokens.bos_id is None else [torch.full((n, 1), tokens.bos_id)]
    return build(
        tokens,
        torch.cat([*start, clean], dim=1),
        torch.cat([*start, corrupted], dim=1),
        answers=once[:, -1],
        foils=other,
        positions={"A1": period - 2 + len(start), "B1": period - 1 + len(start)},
        name="induction",
        seed=seed,
    )


def _ordinary_ids(tokens: Tokenization) -> Int[Tensor, " id"]:
    """Every id that stands for a token of text."""
    size = (
        tokens.n_vocab if tokens.tokenizer is None else min(tokens.n_vocab, len(tokens.tokenizer))
    )
    return torch.tensor([index for index in range(size) if index not in tokens.special_ids])
