"""The regression recovers planted coefficients, and shuffled pairs explain nothing."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import RunError
from interp.pipelines.mlp_regression import (
    MlpRegression,
    _auroc,
    fit,
    mlp_regression,
    r_squared,
    speaks_for,
)
from tests import tiny


def outputs(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 16, generator=generator)


def test_planted_coefficients_and_intercept_come_back():
    planted, intercept = torch.tensor([2.0, -0.5, 0.0]), torch.arange(16.0)
    x = outputs()
    y = torch.einsum("h,phd->pd", planted, x) + intercept
    c, b = fit(x, y)
    assert torch.allclose(c.float(), planted, atol=1e-5)
    assert torch.allclose(b.float(), intercept, atol=1e-4)
    held = outputs(seed=1)
    truth = torch.einsum("h,phd->pd", planted, held) + intercept
    assert r_squared(c, b, held, truth, y.mean(0)) == pytest.approx(1.0)


def test_shuffled_pairs_explain_nothing():
    x = outputs(200)
    y = torch.einsum("h,phd->pd", torch.tensor([2.0, -0.5, 0.0]), x)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    c, b = fit(x[order], y)
    held = outputs(200, seed=1)
    truth = torch.einsum("h,phd->pd", torch.tensor([2.0, -0.5, 0.0]), held)
    assert abs(r_squared(c, b, held[order], truth, y.mean(0))) < 0.02


def test_heads_without_variance_or_none_at_all_get_nothing():
    x = torch.zeros(10, 2, 4)
    y = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    c, b = fit(x, y)
    assert torch.equal(c, torch.zeros(2, dtype=c.dtype))
    assert torch.allclose(b.float(), y.mean(0), atol=1e-6)
    none, _ = fit(x[:, :0], y)
    assert none.shape == (0,)


def test_auroc_by_hand():
    scores, right = torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([True, True, False, False])
    assert _auroc(scores, right) == pytest.approx(3 / 4)


def test_a_vector_speaks_for_the_words_whose_logits_it_raises():
    model = interp.load(tiny.shared("gpt2"))
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))

    def said(stream):
        return model.run([[0, 1, 2]], edit={"L2.resid_post": interp.Replace(stream)}).logits[0, -1]

    # what the model itself makes of it, beyond the final norm's bias
    far = said(1e3 * vector) - said(0 * vector)
    order = far.argsort(descending=True)
    assert speaks_for(model, vector, order[:5]) == 1.0
    assert speaks_for(model, vector, order[-5:]) == 0.0
    assert speaks_for(model, 7 * vector, order[3:6]) == pytest.approx(1 - 3 / (len(far) - 3))
    assert speaks_for(model, vector, torch.cat([order[3:6], torch.tensor([-1])]),
                      aside=order[:3]) == 1.0  # fmt: skip
    with pytest.raises(RunError, match="0 words to rank against"):
        speaks_for(model, vector, order[:3], aside=order[:4])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_an_mlp_reads_the_heads_before_it_and_in_parallel_blocks_not_those_beside_it(
    family, tmp_path
):
    model = interp.load(tiny.shared(family))
    pairs = interp.prompts.induction(model, n=12, period=5)
    found = mlp_regression(model, *pairs.split(0.5), ["a0.h1", "a1.h2"])
    read = ~found.coefficients.isnan()
    parallel = model.anatomy.parallel
    assert parallel == (family == "gpt_neox")
    expected = [[False, False], [True, False], [True, True]] if parallel else [
        [True, False], [True, True], [True, True]]  # fmt: skip
    assert read.tolist() == expected
    again = MlpRegression.load(found.save(tmp_path / "fit.safetensors"))
    assert again.to_frame().equals(found.to_frame())
    assert found.plot().axes[0].get_title()


def test_too_little_is_refused():
    model = interp.load(tiny.shared("gpt2"))
    pairs = interp.prompts.induction(model, n=4, period=5)
    with pytest.raises(RunError, match="a regression on 0 heads over 2 and 2 prompts"):
        mlp_regression(model, *pairs.split(0.5), [])
