from __future__ import annotations

import pytest

import interp


@pytest.fixture(scope="session")
def demo():
    return interp.load("demo", dtype="float64")


@pytest.fixture(scope="session")
def corpus(demo):
    """About two thousand tokens of the demo corpus, no text longer than the context."""
    texts = list(interp.corpora.demo(30, seed=3).documents())
    return interp.corpora.read([t for t in texts if len(demo.tokens.encode_rows([t])[0]) <= 128])
