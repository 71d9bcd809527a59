"""Before texts share rows, the model is shown to keep them apart: a leak is seen in any dtype."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.harvesting.proof import packs
from interp.sites import Site
from interp.token_batch import TokenBatch


@pytest.fixture(params=["float32", "bfloat16"])
def model(request):
    return interp.load("demo", dtype=request.param, check=False)


def leaking(batch: TokenBatch, *, causal: bool) -> torch.Tensor:
    """Causal over the whole row, as in a family that ignores where a text begins."""
    return (batch.mask[:, None, :] == batch.mask[:, :, None]).tril()


@pytest.mark.parametrize("massive", [0, 1000])
def test_a_leak_is_seen_also_beside_massive_activations(model, massive, monkeypatch):
    with torch.no_grad():
        model.hf.gpt_neox.layers[0].mlp.dense_4h_to_h.bias[3] += massive
    sites = (Site.parse("L2.resid_post"), Site.parse("L2.mlp_post"))
    assert packs(model, sites, context=64) is None
    monkeypatch.setattr(TokenBatch, "may_attend", leaking)
    why = packs(model, sites[:1], context=64)
    assert why is not None
    assert "does not keep texts in one row apart: L2.resid_post is off by" in why
