"""Orders and places along rows: against brute force."""

import itertools
import random

import pytest

from interp.circuits.drawing.order import crossings, place, sort_rows, spread


def crossed(rows, links):
    """Pairs of edges that cross, counted one by one."""
    total = 0
    for r, pairs in enumerate(links):
        ends = [
            (rows[r].index(a), rows[r + 1].index(b))
            for (a, b), n in pairs.items()
            for _ in range(n)
        ]
        total += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))
    return total


def random_links(seed, sizes=(4, 5, 4)):
    draw = random.Random(seed)
    rows = [[f"{r}.{i}" for i in range(n)] for r, n in enumerate(sizes)]
    links = [{(a, b): draw.randint(1, 3) for a in low for b in high if draw.random() < 0.4}
             for low, high in itertools.pairwise(rows)]  # fmt: skip
    return rows, links


@pytest.mark.parametrize("seed", range(8))
def test_crossings_are_counted(seed):
    rows, links = random_links(seed)
    assert crossings(rows, links) == crossed(rows, links)


@pytest.mark.parametrize("seed", range(8))
def test_sorting_never_adds_crossings_and_untangles_what_can_be(seed):
    rows, links = random_links(seed)
    after = sort_rows(rows, links)
    assert [sorted(row) for row in after] == [sorted(row) for row in rows]
    assert crossings(after, links) <= crossings(rows, links)
    assert sort_rows(rows, links) == after
    straight = [[f"{r}.{i}" for i in range(6)] for r in range(3)]
    chains = [{(f"{r}.{i}", f"{r + 1}.{i}"): 1 for i in range(6)} for r in range(2)]
    shuffled = [random.Random(seed + r).sample(row, 6) for r, row in enumerate(straight)]
    assert crossings(sort_rows(shuffled, chains), chains) == 0


def test_places_are_the_closest_that_keep_their_distances():
    wanted, weights, distances = [0.0, 0.5, 0.2, 4.0], [1.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0]
    found = spread(wanted, weights, distances)
    assert all(
        b - a >= d - 1e-9 for (a, b), d in zip(itertools.pairwise(found), distances, strict=True)
    )
    cost = lambda x: sum(w * (a - b) ** 2 for w, a, b in zip(weights, x, wanted, strict=True))  # noqa: E731
    draw = random.Random(0)
    for _ in range(500):
        other = [x + draw.gauss(0, 0.1) for x in found]
        if all(b - a >= d for (a, b), d in zip(itertools.pairwise(other), distances, strict=True)):
            assert cost(other) >= cost(found) - 1e-9
    assert spread([1.0, 5.0], [1.0, 1.0], [2.0]) == [1.0, 5.0]  # there is room: nothing moves


def test_a_chain_stands_in_line():
    rows = [["a"], ["b", "c"], ["d"]]
    x = place(rows, [{("a", "b"): 1}, {("b", "d"): 1}], dict.fromkeys("abcd", 10.0), gap=2.0)
    assert x["a"] == pytest.approx(x["b"], abs=0.01)
    assert x["c"] - x["b"] >= 12 - 1e-9
