"""Where heads look: attention from one named position to others, prompt by prompt.

Attention shows what a head reads, not what it does with it: no role rests on it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.model import Model
from interp.pipelines.behaviour import Behaviour, columns
from interp.prompts.prompts import Prompts
from interp.runs.execute import execute

__all__ = ["attention", "attention_from"]


@torch.no_grad()
def attention_from(
    model: Model, prompts: Prompts, query: str
) -> Float[Tensor, "layer head prompt key"]:
    """Every head's attention from one position of the clean prompts; columns may be padding."""
    tokens = prompts.clean.to(model.device)
    rows = torch.arange(len(prompts), device=model.device)
    at = columns(prompts, query).to(model.device)
    cache = execute(model.anatomy, tokens, save="L*.pattern", logits="none").cache
    layers = [cache[f"L{layer}.pattern"][rows, :, at].float() for layer in range(model.n_layers)]
    return torch.stack(layers).transpose(1, 2)  # [layer, prompt, head, key] before


def attention(
    model: Model,
    prompts: Prompts,
    query: str,
    keys: Mapping[str, str | Sequence[str]],
) -> dict[str, Behaviour]:
    """Attention from ``query`` to each of some places, as a behaviour of every head.

    Args:
        query: a position, ``"END"``.
        keys: by a name for it, a place (``"S1"``, ``"S1+1"``) or several, whose shares are added.

    Returns:
        By the same names, behaviours called ``"attention END→name"``, in shares of attention.
    """
    shares = attention_from(model, prompts, query)
    found = {}
    for name, places in keys.items():
        listed = [places] if isinstance(places, str) else list(places)
        total = sum(share_at(shares, columns(prompts, place)) for place in listed)
        assert isinstance(total, Tensor)
        found[name] = Behaviour.of_heads(f"attention {query}→{name}", "share", total)
    return found


def share_at(
    shares: Float[Tensor, "layer head prompt key"], column: Tensor
) -> Float[Tensor, "layer head prompt"]:
    """The share of attention at each prompt's own column."""
    rows = torch.arange(shares.shape[2], device=shares.device)
    return shares[:, :, rows, column.to(shares.device)]
