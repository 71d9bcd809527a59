"""BatchTopK's selection: the largest pre-activations of a whole batch (Bussmann et al. 2024).

1. The batch is cut into chunks by every n-th row, so that each chunk is a fair sample.
2. The first chunk, or some of it, gives a guess that lies a little below the threshold.
3. Of each chunk, everything positive that reaches the guess is kept: one comparison.
4. The threshold is the ``total``-th largest of what was kept. If it reaches the guess, nothing is
   missing. Otherwise there were too few, and step 3 is done again with 0 as the guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.kernels.chunks import chunk_rows, pre_activations
from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.screening import Screen
from interp.dictionaries.kernels.topk import exact_topk, kth_largest, nonzero

__all__ = ["select_batchtopk"]

Kth = Callable[[Tensor, int], Tensor]
Found = tuple[Tensor, Tensor, Tensor]  # rows, features, values


@torch.no_grad()
def select_batchtopk(
    x: Float[Tensor, "rows d_in"],
    enc: Float[Tensor, "d_sae d_in"],
    b_enc: Float[Tensor, " d_sae"],
    total: int,
    *,
    screen: bool = False,
    chunk: int | None = None,
    kth: Kth | None = None,
) -> Codes:
    """The ``total`` largest of ``relu(x @ encᵀ + b_enc)`` in the batch; positive ones only.

    Entries come in the order of rows, within a row in that of features. Among equal values at the
    threshold the first ones are kept, so that there are exactly ``total``.

    Args:
        total: how many: k for each row on average. Over all processes, with ``kth``.
        screen: as in :func:`select_topk`.
        chunk: rows at a time.
        kth: ``(values, total) → the total-th largest value of all processes, 0 if there are fewer``,
            for several processes that share one threshold. Each calls it equally often. All entries
            that reach the threshold are then kept.

    Raises:
        DictionaryError: ``screen`` for other than float32 on a CPU.
    """
    x, enc, b_enc = x.detach(), enc.detach(), b_enc.detach()
    agree = kth or kth_largest
    if not len(x) and kth is None:
        return _codes(x, enc, 1, _none(x))
    size = max(1, chunk_rows(x, enc, chunk, bytes_each=2 if screen else None))
    n = max(1, -(-len(x) // size))
    source = (_Screened if screen else _Plain)(x, enc, b_enc, n, size)
    guess = agree(source.sample(total), math.ceil(total * _margin(len(x), source.every)))
    found = _collect(source, n, guess, total)
    threshold = agree(found[2], total)
    short = threshold < guess
    if kth is not None:  # whether anybody has too few
        short = kth(short.to(x.dtype)[None], 1) > 0
    if bool(short):
        found = _collect(source, n, torch.zeros_like(guess), total)
        threshold = agree(found[2], total)
    codes = _codes(x, enc, n, _at_least(found, threshold))
    return codes if kth else _without_surplus(codes, threshold, total)


def _margin(rows: int, every: int) -> float:
    """The share of ``total`` that a sample of every n-th row is asked for: somewhat more than its own."""
    return 1.0 if every == 1 else (1 + 6 * math.sqrt(every / max(1, rows))) / every


class _Plain:
    """Entries of every n-th row, by a product in the weights' own precision."""

    def __init__(self, x: Tensor, enc: Tensor, b_enc: Tensor, n: int, size: int) -> None:
        self.x, self.n, self.every = x, n, n
        self._pre = pre_activations(enc, b_enc, size)
        self._at: tuple[int, Tensor] | None = None

    def sample(self, total: int) -> Float[Tensor, " candidates"]:
        """The largest values of the first chunk's rows."""
        pre = self._chunk(0)
        k = min(pre.shape[1], 2 * -(-total // max(1, len(self.x))))
        return exact_topk(pre, k)[0].flatten()

    def reaching(self, i: int, least: Tensor) -> Found:
        pre = self._chunk(i)
        hits = nonzero((pre >= least) & (pre > 0) if least <= 0 else pre >= least)
        row = hits // pre.shape[1]
        return row * self.n + i, hits - row * pre.shape[1], pre.flatten()[hits]

    def _chunk(self, i: int) -> Tensor:
        if self._at is None or self._at[0] != i:
            self._at = i, self._pre(self.x[i :: self.n])
        return self._at[1]


class _Screened:
    """The same by screening."""

    def __init__(self, x: Tensor, enc: Tensor, b_enc: Tensor, n: int, size: int) -> None:
        self.n, self.total = n, len(x)
        self.every = 1 if n == 1 else 4 * n  # its rows are done twice
        self._screen = Screen(x, enc, b_enc, size)

    def sample(self, total: int) -> Float[Tensor, " candidates"]:
        rows = slice(0, None, self.every)
        k = min(len(self._screen.enc), 2 * -(-total // max(1, self.total)))
        return self._screen.topk(rows, k)[0].flatten()

    def reaching(self, i: int, least: Tensor) -> Found:
        rows = slice(i, None, self.n)
        row, feature, values = self._screen.reaching(rows, self._screen.bounds(rows), least)
        return row * self.n + i, feature, values


def _collect(source: _Plain | _Screened, n: int, least: Tensor, total: int) -> Found:
    """All entries that can be among the ``total`` largest. ``least`` rises where more are found."""
    parts: list[Found] = []
    held = 0
    for i in range(n):
        parts.append(source.reaching(i, least))
        held += len(parts[-1][2])
        if held > 2 * total:
            least = torch.maximum(least, kth_largest(torch.cat([p[2] for p in parts]), total))
            parts = [_at_least(one, least) for one in parts]
            held = sum(len(p[2]) for p in parts)
    rows, features, values = (torch.cat(list(one)) for one in zip(*parts, strict=True))
    return rows, features, values


def _at_least(found: Found, least: Tensor) -> Found:
    rows, features, values = found
    keep = values >= least
    return rows[keep], features[keep], values[keep]


def _codes(x: Tensor, enc: Tensor, n: int, found: Found) -> Codes:
    """Entries, which come in the order of chunks, in that of rows."""
    rows, features, values = found
    counts = torch.bincount(rows, minlength=len(x))
    offsets = counts.cumsum(0) - counts
    in_turn = torch.cat([torch.arange(i, len(x), n, device=x.device) for i in range(n)])
    began = torch.empty_like(counts)
    began[in_turn] = counts[in_turn].cumsum(0) - counts[in_turn]
    to = offsets[rows] + torch.arange(len(rows), device=x.device) - began[rows]
    return Codes(
        torch.empty_like(values).index_copy_(0, to, values),
        torch.empty_like(features).index_copy_(0, to, features),
        offsets,
        len(enc),
    )


def _without_surplus(codes: Codes, threshold: Tensor, total: int) -> Codes:
    surplus = len(codes.values) - total
    if surplus <= 0:
        return codes
    keep = torch.ones_like(codes.values, dtype=torch.bool)
    keep[(codes.values == threshold).nonzero()[-surplus:, 0]] = False
    counts = torch.bincount(codes.rows()[keep], minlength=len(codes))
    return Codes(codes.values[keep], codes.features[keep], counts.cumsum(0) - counts, codes.d_sae)


def _none(x: Tensor) -> Found:
    empty = torch.empty(0, dtype=torch.long, device=x.device)
    return empty, empty, x.new_empty(0)
