"""Five things that an edit may be asked to do (Hase et al. 2023, arXiv:2301.04213, section 5).

For a fact (subject s, relation r, true object o*) and a false object o':

    error injection     raise  p(o' | s, r)
    tracing reversal    raise  p(o_noise | s, r)     what the model says when s is noised
    fact erasure        lower  p(o* | s, r)
    fact amplification  raise  p(o* | s, r)
    fact forcing        raise  p(o* | s_noise, r)    the model reads a noised subject

Causal tracing restores p(o* | s_noise, r): fact forcing is the edit that is most like it, so if
tracing told where to edit, it should tell here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from interp.errors import PromptError, nearest
from interp.runs.edits import Noise

__all__ = ["VARIANTS", "Objective", "Variant"]

Variant = Literal[
    "error injection", "tracing reversal", "fact erasure", "fact amplification", "fact forcing"
]
VARIANTS: Final[tuple[Variant, ...]] = (
    "error injection", "tracing reversal", "fact erasure", "fact amplification", "fact forcing",
)  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """What an edit should do to one continuation.

    Attributes:
        target: the continuation, as text with its leading space or as ids.
        lower: make it less probable; the loss is then −log(1 − p).
        noise: noise on the embeddings of the subject's tokens, at which the edit is trained and
            scored; None for none. Each prompt has a draw of its own.
    """

    target: str | int | Sequence[int]
    lower: bool = False
    noise: Noise | None = None


def check_variant(variant: str) -> None:
    """PromptError unless it is one of the five."""
    if variant not in VARIANTS:
        raise PromptError(
            f"no editing variant is called {variant!r}; nearest: {nearest(variant, VARIANTS)}."
        )
