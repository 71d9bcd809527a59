"""SAELens, imported once: it takes seconds."""

import warnings

import pytest


@pytest.fixture(scope="session")
def lens():
    """The module ``sae_lens``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import sae_lens
    return sae_lens
