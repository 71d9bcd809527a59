from __future__ import annotations

import pytest

import interp


@pytest.fixture(scope="session")
def demo():
    return interp.load("demo")


@pytest.fixture(scope="session")
def corpus():
    """A few thousand tokens of the demo corpus."""
    return interp.corpora.demo(60, seed=3)
