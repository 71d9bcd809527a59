"""A small store of the demo model's activations to train on."""

from __future__ import annotations

import pytest

import interp


@pytest.fixture(scope="package")
def demo():
    return interp.load("demo", check=False)


@pytest.fixture(scope="package")
def store(demo, tmp_path_factory):
    return interp.harvest(
        demo, "demo", ["L0.mlp", "L1.mlp", "L2.resid_post", "L2.z"],
        tmp_path_factory.mktemp("acts") / "store", tokens=16_384, dtype="float32", progress=False,
    )  # fmt: skip
