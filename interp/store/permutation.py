"""A shuffle that is a function: which row stands at place ``i``, without a list of all rows.

Row-shuffled reading of 10⁹ rows must not hold 10⁹ indices, and must be able to start at any place.
So the shuffle is a cipher on the numbers below ``n``:

1. A number below ``side²`` (``side = ⌈√n⌉``) is two digits (left, right) to the base ``side``.
2. Each round adds to one digit a hash of the other one and of the round's key, modulo ``side``,
   left and right in turn. A round can be undone whatever the hash, so all rounds together are a
   permutation of the numbers below ``side²``.
3. A result that is not below ``n`` goes through again, until it is (cycle walking). That keeps it a
   permutation, now of the numbers below ``n``, and is rare: ``side² - n ≤ 2√n``.

For ``n`` up to 4096 a cipher's rounds reach only part of the orders there are, and the numbers are
sorted by a hash instead.

Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains", method 3 (generalised Feistel
cipher) and method 2 (cycle walking), with eight rounds where they prove bounds for three; Hoang &
Rogaway 2010, "On generalized Feistel networks" (more rounds). The hash is the finaliser of
SplitMix64, Steele et al. 2014, "Fast splittable pseudorandom number generators". It is no cipher
against an adversary: the aim is that no statistic of the data sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
from jaxtyping import Int, UInt
from numpy import ndarray

from interp.errors import StoreError

__all__ = ["Permutation", "keys"]

_ROUNDS = 8
_SORTED = 4096
_MOST = 2**62  # digits stay below 2^31, so that hash × side fits 64 bits


@dataclass(frozen=True)
class Permutation:
    """A pseudorandom order of the numbers below ``n``.

    Attributes:
        n: how many numbers.
        seed: 0 or more; each seed has an order of its own.
        epoch: 0 or more; each epoch of a seed has one too.

    Raises:
        StoreError: ``n`` or the seed is out of range.

    >>> Permutation(5, seed=0)(np.arange(5)).tolist()
    [2, 0, 3, 1, 4]
    """

    n: int
    seed: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.n <= _MOST:
            raise StoreError(f"a permutation of {self.n} numbers; expected 0 to 2^62.")
        keys(self.seed, self.epoch, 1)

    def __len__(self) -> int:
        return self.n

    def __call__(self, places: Int[ndarray, " places"]) -> Int[ndarray, " places"]:
        """The numbers that stand at some places, each from 0 to ``n - 1``."""
        places = np.asarray(places, dtype=np.int64)
        if self.n <= _SORTED:
            return self._order[places]
        numbers = self._rounds(places.astype(np.uint64))
        while (outside := np.flatnonzero(numbers >= self.n)).size:
            numbers[outside] = self._rounds(numbers[outside])
        return numbers.astype(np.int64)

    @cached_property
    def _keys(self) -> UInt[ndarray, " round"]:
        return keys(self.seed, self.epoch, _ROUNDS)

    @cached_property
    def _order(self) -> Int[ndarray, " n"]:
        numbers = np.arange(self.n, dtype=np.uint64)
        return np.argsort(_hash(_hash(numbers + self._keys[0]) + self._keys[1]), kind="stable")

    def _rounds(self, numbers: UInt[ndarray, " places"]) -> UInt[ndarray, " places"]:
        side = np.uint64(isqrt(self.n - 1) + 1)
        left, right = np.divmod(numbers, side)
        for key in self._keys:
            # The upper half of the hash, scaled to 0 … side - 1: quicker than a division.
            moved = left + ((_hash(right + key) >> np.uint64(32)) * side >> np.uint64(32))
            left, right = right, np.where(moved >= side, moved - side, moved)
        return left * side + right


def keys(seed: int, epoch: int, n: int) -> UInt[ndarray, " n"]:
    """``n`` numbers of 64 bits that depend on a seed and an epoch, the same on every machine.

    Raises:
        StoreError: the seed or the epoch is no whole number from 0 up.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
            raise StoreError(f"{name}={value!r}; expected a whole number, 0 or more.")
    return np.random.SeedSequence((int(seed), int(epoch))).generate_state(n, np.uint64)


def _hash(x: UInt[ndarray, " n"]) -> UInt[ndarray, " n"]:
    """64 bits well mixed: the finaliser of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
