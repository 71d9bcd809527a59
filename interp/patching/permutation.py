"""How far would a random cell have moved the metric? A permutation test.

Source: Phipson & Smyth 2010 (a p-value that is never 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.errors import ResultError

if TYPE_CHECKING:
    from interp.patching.result import PatchResult

__all__ = ["permutation_p"]


def permutation_p(result: PatchResult, null: PatchResult) -> float:
    """How often a random set moves the metric at least as far: a permutation p-value.

    ``(1 + number of random sets with |effect| ≥ the set's) / (1 + number of random sets)``
    (Phipson & Smyth 2010), so never 0; with 50 draws at least .02.

    Args:
        result: a sweep of one cell.
        null: the same sweep of random cells (``interp.random_ablation``).

    Raises:
        ResultError: several cells, unfinished ones, or results that cannot be compared.
    """
    if result.values.numel() != 1 or not bool(result.done.all() and null.done.all()):
        raise ResultError(
            f"p_value() compares one finished cell with finished random sets; given {result!r} and "
            f"{null!r}. Pick a cell with result.select(...)."
        )
    for word in ("metric", "direction"):
        if getattr(result, word) != getattr(null, word):
            raise ResultError(
                f"these results differ in {word}: {getattr(result, word)!r} and "
                f"{getattr(null, word)!r}. Run both alike."
            )
    same = ("source", "reference", "positions")
    ours, theirs = result.provenance, null.provenance
    if (
        ours.prompts_hash != theirs.prompts_hash
        or ours.weights_hash != theirs.weights_hash
        or any(ours.call.get(word) != theirs.call.get(word) for word in same)
    ):
        raise ResultError(
            "these results are of other prompts, another model or another method: ablate the set "
            "and draw the random ones with the same arguments."
        )
    effect = (result.values.flatten() - result.clean.mean()).abs()
    random = (null.values.flatten() - null.clean.mean()).abs()
    return float((1 + (random >= effect - 1e-6).sum()) / (1 + len(random)))
