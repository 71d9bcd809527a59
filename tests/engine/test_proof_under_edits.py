"""A proof that a block may be replayed holds for the weights it was made with, and no others."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.engine import probe
from tests import tiny


def sweep(model, engine):
    ids = tiny.tokens(2, 8), tiny.tokens(2, 8, seed=1)
    found = interp.patch(model, *ids, "L*.mlp_post", answers=[5, 6], foils=[7, 8], engine=engine)
    return found.values


@pytest.mark.parametrize("family", ["gemma2", "olmo2"])
@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_what_was_proven_of_edited_weights_is_not_taken_for_granted_after(family, factor):
    model = interp.load(tiny.build(family), check=False)
    with model.edited({"L*.W_out": lambda w: w * factor}):
        probe.why_not(model.anatomy)  # with no MLP, every short way agrees
    assert torch.allclose(sweep(model, "auto"), sweep(model, "plain"), atol=1e-4)
