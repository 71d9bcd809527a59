"""Attention patterns of a circuit's heads, kept small enough to stand in a page.

Shares are kept in thousandths, two characters each; where nothing after a query is attended to, only the
lower triangle is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.errors import CircuitError
from interp.graph import Node

if TYPE_CHECKING:
    from interp.lenses.attention import AttentionResult

__all__ = ["measured", "packed"]

_PROMPTS: Final = 6  # that a page keeps the patterns of
_MOST: Final = 16e6  # characters of patterns
_DIGITS: Final = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", dtype=np.uint8
)


def measured(circuit: Any, model: Any, prompts: Any) -> list[AttentionResult]:
    """The patterns of the circuit's heads over each of the first six prompts.

    Args:
        prompts: :class:`interp.Prompts`, one text or several.

    Raises:
        CircuitError: the patterns would take more room than a page has.
    """
    from interp.lenses.attention import attention

    heads = [
        f"L{node.layer}.H{node.index}"
        for node in map(Node.parse, circuit.nodes)
        if node.kind == "head"
    ]
    if not heads:
        return []
    out: list[AttentionResult] = []
    for prompt in islice(_each(prompts), _PROMPTS):
        _check(len(heads), [*(len(one.tokens) for one in out), model.batch(prompt).mask.shape[1]])
        out.append(attention(model, prompt, [f"{head}.pattern" for head in heads]))
    return out


def _each(prompts: Any) -> Iterable[Any]:
    if hasattr(prompts, "subset"):
        return (prompts.subset([i]) for i in range(len(prompts)))
    return [prompts] if isinstance(prompts, str) else prompts


def _check(heads: int, lengths: Sequence[int]) -> None:
    size = sum(2 * heads * n * n for n in lengths)
    if size > _MOST:
        raise CircuitError(
            f"the patterns of {heads} heads over {len(lengths)} prompts of up to {max(lengths)} tokens make "
            f"{size / 1e6:.0f} MB (at most {_MOST / 1e6:.0f} MB in a page): give fewer or shorter prompts."
        )


def packed(results: Iterable[AttentionResult]) -> list[dict[str, Any]]:
    """For each prompt its tokens and its heads' patterns, under the heads' names in a circuit.

    Raises:
        CircuitError: too much for a page.
    """
    out: list[dict[str, Any]] = []
    for result in results:
        _check(len(result.heads), [*(len(one["tokens"]) for one in out), len(result.tokens)])
        ahead = bool((result.patterns.triu(1) > 1e-6).any())
        heads = {_node(name): _encoded(pattern, ahead)
                 for name, pattern in zip(result.heads, result.patterns, strict=True)}  # fmt: skip
        out.append({"tokens": list(result.tokens), "ahead": ahead, "heads": heads})
    return out


def _node(head: str) -> str:
    """``"L1.H3"`` as a circuit calls it."""
    layer, _, number = head.partition(".")
    return f"a{layer[1:]}.h{number[1:]}"


def _encoded(pattern: Float[Tensor, "query key"], ahead: bool) -> str:
    shares = pattern.detach().float().cpu().clamp(0, 1).numpy()
    flat = shares.reshape(-1) if ahead else shares[np.tril_indices(len(shares))]
    thousandths = np.rint(flat * 1000).astype(np.int64)
    pairs = np.stack([_DIGITS[thousandths // 64], _DIGITS[thousandths % 64]], -1)
    return pairs.tobytes().decode("ascii")
