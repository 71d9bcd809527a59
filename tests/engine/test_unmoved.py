"""Features that a sweep would put back as they are need no run: the baseline is theirs, to the bit."""

import pytest
import torch

import interp
from tests import tiny
from tests.dictionaries import standing
from tests.engine.cases import pairs


@pytest.mark.parametrize("error", [False, True])
def test_features_that_stay_as_they_are_are_not_run(error):
    model = interp.load(tiny.shared("gpt2"))
    prompts, one = pairs(model), standing.transcoder(model, 1, activation="topk", k=2)
    with model.replaced(one, error=error):
        sides = [model.run(side, save="L1.mlp").cache["L1.mlp"]
                 for side in (prompts.clean, prompts.corrupted)]  # fmt: skip
        silent = (sides[0] == sides[1]).all(0).all(0)
        assert 0 < int(silent.sum()) < standing.D_SAE
        for way, same in (
            (interp.patch, silent),
            (lambda *a, **o: interp.ablate(*a, method="zero", **o), (sides[0] == 0).all(0).all(0)),
        ):
            got = way(model, prompts, "L1.mlp.F*", progress=False)
            every = way(model, prompts, "L1.mlp.F*", engine="plain", progress=False)
            assert (got.work["skipped"], every.work["skipped"]) == (int(same.sum()), 0)
            assert torch.equal(got.per_prompt, every.per_prompt)
            assert got.done.all()
        again = interp.patch(model, prompts, "L1.mlp.F*", positions="each", progress=False)
        want = interp.patch(
            model, prompts, "L1.mlp.F*", positions="each", engine="plain", progress=False
        )
        assert torch.equal(again.per_prompt, want.per_prompt)
        assert again.work["skipped"] == int((sides[0] == sides[1]).all(0).sum())
        both = interp.patch(model, prompts, "L1.mlp.F0 + L1.resid_post", progress=False)
        assert both.work["skipped"] == 0
