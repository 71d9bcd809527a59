"""On the shipped model the estimates order edges as exact ablation does; how well, in numbers."""

import pytest
import torch

import interp

#: Pearson with the exact sizes and share of its 50 largest, floors below what was measured.
FLOORS = {
    "eap": (0.93, 0.8), "eap-ig": (0.97, 0.8), "eap-ig-activations": (0.97, 0.88),
    "atp-qk": (0.93, 0.8), "atp*": (0.85, 0.75),
}  # fmt: skip


def sizes(scores):
    return scores.values[scores.graph.index].abs().double()


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def pairs(model):
    return interp.prompts.capitals(model, 6, 0)


def test_estimates_order_edges_as_exact_ablation_does(model, pairs):
    exact = interp.attribute(model, pairs, "edges", method="exact", progress=False)
    top = set(exact.ranked()[:50])
    for method, (pearson, share) in FLOORS.items():
        guess = interp.attribute(model, pairs, "edges", method=method, progress=False)
        found = torch.corrcoef(torch.stack([sizes(exact), sizes(guess)]))[0, 1]
        assert float(found) > pearson, method
        assert len(top & set(guess.ranked()[:50])) / 50 > share, method


def test_the_untrained_twin_has_next_to_nothing_to_attribute(model, pairs):
    twin = model.random_twin()
    for method in ("eap-ig-activations", "atp*"):
        trained, null = (
            interp.attribute(one, pairs, "edges", method=method, steps=2, progress=False)
            for one in (model, twin)
        )
        assert sizes(null).max() < 0.05 * sizes(trained).max(), method
