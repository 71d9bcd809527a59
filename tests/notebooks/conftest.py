"""What the tests of notebooks share."""

from __future__ import annotations

from importlib import import_module

import pytest

DIGEST = "0" * 64


@pytest.fixture(autouse=True, scope="module")
def package():
    """The package's digest, as if nobody were working on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("interp.notebooks.plan"), "package_digest", lambda: DIGEST)
        yield
