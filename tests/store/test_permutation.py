"""The shuffle that is a function: every number once, and no trace of their order."""

import numpy as np
import pytest

from interp.errors import StoreError
from interp.store.permutation import Permutation

SIZES = [
    0,
    1,
    2,
    3,
    5,
    16,
    97,
    1000,
    4095,
    4096,
    4097,
    4225,
    5003,
    8192,
    65536,
    65537,
    99856,
    100_003,
]

GOLDEN_SMALL = [7, 6, 4, 0, 2, 3, 1, 5]
GOLDEN_LARGE = [565284991905, 705280186476, 316721689484]


def order(n, seed=0, epoch=0):
    return Permutation(n, seed, epoch)(np.arange(n))


def chi_square(counts, expected):
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("n", SIZES)
def test_every_number_comes_once(n):
    assert np.array_equal(np.sort(order(n, seed=n)), np.arange(n))


def test_a_place_alone_has_what_it_has_among_all():
    for n in (100, 50_000):
        whole = order(n, seed=3, epoch=2)
        for places in (np.array([7]), np.array([99, 0, 99]), np.arange(40, 90)):
            assert np.array_equal(Permutation(n, 3, 2)(places), whole[places])


def test_seeds_and_epochs_give_orders_of_their_own():
    for n in (1000, 10_000):
        orders = [order(n, seed, epoch) for seed in (0, 1, 2**40) for epoch in (0, 1)]
        for i, one in enumerate(orders):
            assert np.array_equal(one, order(n, (0, 0, 1, 1, 2**40, 2**40)[i], i % 2))
            for other in orders[:i]:  # as many fixed points as two random orders: one, on average
                assert (one == other).sum() < 10


@pytest.mark.parametrize("n", [8, 5000])
def test_the_first_place_is_uniform_over_seeds(n):
    bins = 8
    first = np.concatenate([Permutation(n, seed)(np.array([0, n - 1])) for seed in range(1200)])
    counts = np.bincount(first * bins // n, minlength=bins)
    assert chi_square(counts, len(first) / bins) < 29.9  # p = 1e-4 at 7 degrees of freedom


def test_a_small_order_is_any_of_all_orders():
    seen = [tuple(order(3, seed)) for seed in range(1200)]
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert chi_square(counts, 200) < 25.7  # p = 1e-4 at 5


@pytest.mark.parametrize("n", [10_000, 123_457])
def test_neighbours_are_no_more_alike_than_chance(n):
    x = order(n, seed=11)
    close = (np.abs(np.diff(x)) == 1).sum()  # of n pairs 2 / n each: 2 on average
    assert close <= 12
    # Where a number lies says nothing about where the next one does: a 16 × 16 table.
    cells = np.bincount((x[:-1] * 16 // n) * 16 + x[1:] * 16 // n, minlength=256)
    assert chi_square(cells, (n - 1) / 256) < 346  # p = 1e-4 at 255
    # Nor does the place, and the mean is that of all numbers in every stretch.
    thirds = np.bincount((np.arange(n) * 16 // n) * 16 + x * 16 // n, minlength=256)
    assert chi_square(thirds, n / 256) < 346


def test_the_numbers_are_the_same_everywhere():
    """A change of these would reorder everybody's training."""
    assert order(8, seed=1).tolist() == GOLDEN_SMALL
    assert Permutation(10**12, seed=1)(np.arange(3)).tolist() == GOLDEN_LARGE


def test_a_large_order_needs_no_memory():
    n = 10**15 + 37
    places = np.arange(0, n, n // 10_000)
    numbers = Permutation(n, seed=5)(places)
    assert numbers.min() >= 0
    assert numbers.max() < n
    assert len(np.unique(numbers)) == len(places)


@pytest.mark.bad_input
def test_what_is_no_seed_is_refused():
    with pytest.raises(StoreError, match=r"seed=-1; expected a whole number, 0 or more"):
        Permutation(5, -1)
    with pytest.raises(StoreError, match=r"seed=0.5; expected a whole number"):
        Permutation(5, 0.5)
    with pytest.raises(StoreError, match=r"a permutation of -3 numbers"):
        Permutation(-3)
