"""The scores with every edge ablated, read from the last stream of the run that is differentiated."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.graph import Setting
from tests import tiny
from tests.attribution.edges.test_eap import APART
from tests.engine.cases import pairs


@pytest.mark.parametrize("direction", ["noise", "denoise"])
@pytest.mark.parametrize("family", APART)
def test_are_those_of_the_run_without_edges(family, direction):
    model = interp.load(tiny.shared(family), check=False)
    prompts = pairs(model, "left")
    expected = Setting.of(model, prompts, direction=direction).empty
    for method in ("eap", "eap-ig"):
        found = interp.attribute(
            model, prompts, "edges", method=method, direction=direction, batch=1, steps=1
        )
        assert torch.allclose(found.empty, expected, rtol=1e-4, atol=2e-5)
