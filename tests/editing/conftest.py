"""The demo model with its keys' second moments and a small study, made once; and tiny models."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import editing
from interp.demo import corpus
from interp.demo.recipe import FULL
from tests import tiny


@pytest.fixture(scope="session")
def demo():
    return interp.load("demo")


def corpus_rows(model, steps):
    """Rows of the text that the demo model was trained on, as other steps would have read them."""
    rows = [corpus.batch(FULL, model.tokenizer, seed=7, step=FULL.steps - 1 - i)[0]
            for i in range(steps)]  # fmt: skip
    return torch.cat(rows)


@pytest.fixture(scope="session")
def keys(demo):
    return editing.covariance(demo, corpus_rows(demo, 3), layers=(0, 1))


@pytest.fixture(scope="session")
def cases(demo):
    return editing.capital_cases(demo, 4, seed=1)


@pytest.fixture(scope="session")
def few():
    """ROME with fewer prefixes than the paper's, for speed."""
    return editing.Rome(prefixes=((2, 5), (2, 10)))


@pytest.fixture(scope="session")
def tiny_model(llama_like_tokenizer):
    def build(family, **changes):
        hf = tiny.build(family, vocab_size=len(llama_like_tokenizer), **changes)
        return interp.load(hf, tokenizer=llama_like_tokenizer, check=False)

    return build
