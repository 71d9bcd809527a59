"""Do the two prompts of a pair line up, token by token?

Patching moves what one run computed at a position into the same position of the
other, so a pair must have one token length. Where it has not, the error shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import PromptError
from interp.token_batch import TokenBatch

__all__ = ["check_aligned", "side_by_side"]


def check_aligned(
    clean: TokenBatch,
    corrupted: TokenBatch,
    clean_pieces: Sequence[Sequence[str]],
    corrupted_pieces: Sequence[Sequence[str]],
) -> None:
    """Raise unless every clean prompt has as many tokens as its corrupted one.

    Args:
        clean_pieces: the real tokens of each clean prompt as text, to show.
        corrupted_pieces: those of each corrupted prompt.
    """
    if len(clean) != len(corrupted):
        raise PromptError(
            f"there are {len(clean)} clean and {len(corrupted)} corrupted prompts, expected as "
            "many of each. Give one corrupted prompt for every clean one."
        )
    pairs = zip(clean.n_real.tolist(), corrupted.n_real.tolist(), strict=True)
    bad = [row for row, (a, b) in enumerate(pairs) if a != b]
    if not bad:
        return
    row = bad[0]
    more = f" ({len(bad)} of {len(clean)} pairs are misaligned)" if len(bad) > 1 else ""
    raise PromptError(
        f"pair {row} has {int(clean.n_real[row])} clean and {int(corrupted.n_real[row])} corrupted "
        f"tokens, expected one length{more}:\n"
        f"{side_by_side(clean_pieces[row], corrupted_pieces[row])}\n"
        "Try words that split into equally many tokens, or drop the pair."
    )


def side_by_side(clean: Sequence[str], corrupted: Sequence[str]) -> str:
    """Two rows of tokens, one under the other.

    >>> print(side_by_side(["The", " Ivory", " Coast"], ["The", " Peru"]))
      clean:     |The| Ivory| Coast|
      corrupted: |The| Peru |
    """
    widths = [max(len(a), len(b)) for a, b in zip(clean, corrupted, strict=False)]
    return f"  clean:     {_bars(clean, widths)}\n  corrupted: {_bars(corrupted, widths)}"


def _bars(pieces: Sequence[str], widths: Sequence[int]) -> str:
    padded = [piece.ljust(width) for piece, width in zip(pieces, widths, strict=False)]
    cells = [*padded, *pieces[len(padded) :]]
    return "|" + "|".join(cell.replace("\n", "⏎") for cell in cells) + "|"
