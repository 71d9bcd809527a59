"""Rows of a layered drawing: which order crosses least, and where along a row things stand.

Orders by barycentre (Sugiyama, Tagawa & Toda 1981): each item goes to the mean place of what it is
linked to in the next row, upwards and downwards in turn; the order with the fewest crossings is kept.
Places are those closest to the mean of an item's neighbours at which nothing overlaps: least
squares with an order and distances to keep is isotonic regression.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Final

__all__ = ["Links", "crossings", "place", "sort_rows", "spread"]

Item = Hashable
#: Between each row and the next above it: pairs of items and how many edges link them.
Links = Sequence[Mapping[tuple[Item, Item], int]]

_SWEEPS: Final = 12


def sort_rows(rows: Sequence[Sequence[Item]], links: Links) -> list[list[Item]]:
    """Rows in an order with few crossings. The same rows give the same order."""
    current = [list(row) for row in rows]
    best, least = [list(row) for row in current], crossings(current, links)
    below, above = _neighbours(rows, links)
    for sweep in range(_SWEEPS):
        upward = sweep % 2 == 0
        for r in range(1, len(rows)) if upward else range(len(rows) - 2, -1, -1):
            _by_barycentre(
                current[r], current[r - 1 if upward else r + 1], below if upward else above
            )
        count = crossings(current, links)
        if count < least:
            best, least = [list(row) for row in current], count
    return best


def crossings(rows: Sequence[Sequence[Item]], links: Links) -> int:
    """How many pairs of edges cross between neighbouring rows."""
    total = 0
    for r, pairs in enumerate(links):
        low, high = (_places(rows[r]), _places(rows[r + 1]))
        seen: list[int] = []
        ends = sorted((low[a], high[b], n) for (a, b), n in pairs.items())
        for start in range(0, len(ends)):
            _, end, n = ends[start]
            total += n * (len(seen) - bisect_right(seen, end))
            for _ in range(n):
                insort(seen, end)
    return total


def place(
    rows: Sequence[Sequence[Item]], links: Links, widths: Mapping[Item, float], *,
    gap: float, straight: Mapping[Item, float] | None = None, sweeps: int = 24,
) -> dict[Item, float]:  # fmt: skip
    """The centre of each item, in the unit of ``widths``.

    Args:
        gap: between two items of a row.
        straight: how much more the links of some items weigh, so that these stand in line.
    """
    heavy = straight or {}
    x = {item: at for row in rows for item, at in zip(row, _packed(row, widths, gap), strict=True)}
    neighbours: dict[Item, list[tuple[Item, float]]] = {item: [] for item in x}
    for pairs in links:
        for (a, b), n in pairs.items():
            weight = n * heavy.get(a, 1.0) * heavy.get(b, 1.0)
            neighbours[a].append((b, weight))
            neighbours[b].append((a, weight))
    for sweep in range(sweeps):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted, weights = [], []
            for item in row:
                total = sum(w for _, w in neighbours[item])
                mean = sum(x[other] * w for other, w in neighbours[item])
                wanted.append(mean / total if total else x[item])
                weights.append(total or 1e-3)
            x |= dict(zip(row, spread(wanted, weights, _distances(row, widths, gap)), strict=True))
    return x


def spread(
    wanted: Sequence[float], weights: Sequence[float], distances: Sequence[float]
) -> list[float]:
    """The places closest to those wanted that keep their order and distances (weighted squares).

    Pool adjacent violators, on what is left of each place when the distances before it are taken off.

    >>> spread([0.0, 0.0], [1.0, 1.0], [2.0])
    [-1.0, 1.0]
    """
    offsets = [0.0]
    for distance in distances:
        offsets.append(offsets[-1] + distance)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight, offset in zip(wanted, weights, offsets, strict=True):
        blocks.append((value - offset, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, v, m), (b, w, n) = blocks[-2:]
            blocks[-2:] = [((a * v + b * w) / (v + w), v + w, m + n)]
    means = [mean for mean, _, n in blocks for _ in range(n)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _neighbours(
    rows: Sequence[Sequence[Item]], links: Links
) -> tuple[dict[Item, list[tuple[Item, int]]], dict[Item, list[tuple[Item, int]]]]:
    below: dict[Item, list[tuple[Item, int]]] = {item: [] for row in rows for item in row}
    above: dict[Item, list[tuple[Item, int]]] = {item: [] for row in rows for item in row}
    for pairs in links:
        for (a, b), n in pairs.items():
            below[b].append((a, n))
            above[a].append((b, n))
    return below, above


def _by_barycentre(
    row: list[Item], fixed: Sequence[Item], neighbours: Mapping[Item, Sequence[tuple[Item, int]]]
) -> None:
    """Sort a row in place; items without neighbours there keep their share of the way along it."""
    at = {item: (i + 0.5) / len(fixed) for i, item in enumerate(fixed)}
    key = {}
    for i, item in enumerate(row):
        linked = neighbours[item]
        count = sum(n for _, n in linked)
        mean = sum(at[other] * n for other, n in linked)
        key[item] = mean / count if count else (i + 0.5) / len(row)
    row.sort(key=key.__getitem__)


def _places(row: Sequence[Item]) -> dict[Item, int]:
    return {item: i for i, item in enumerate(row)}


def _distances(row: Sequence[Item], widths: Mapping[Item, float], gap: float) -> list[float]:
    return [(widths[a] + widths[b]) / 2 + gap for a, b in pairwise(row)]


def _packed(row: Sequence[Item], widths: Mapping[Item, float], gap: float) -> list[float]:
    """Side by side, centred at 0."""
    offsets = [0.0]
    for distance in _distances(row, widths, gap):
        offsets.append(offsets[-1] + distance)
    return [offset - offsets[-1] / 2 for offset in offsets]
