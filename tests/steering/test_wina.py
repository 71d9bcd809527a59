"""WINA: scores by hand, masks of the right size, the best choice where theory says so, and the null."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import MetricError, RunError
from interp.steering.sparsity import SparsityLosses, sparsity_losses
from interp.steering.wina import (
    METHODS,
    Sparsify,
    SparsifyAtRandom,
    kept,
    read_norms,
    sparsified,
    wina_scores,
)
from tests import tiny

DRAW = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def demo():
    return interp.load("demo")


@pytest.fixture(scope="module")
def texts(demo):
    documents = list(interp.corpora.demo(24, seed=5).documents())
    return [" ".join(text.split()[:60]) for text in documents]


def test_a_score_is_the_length_of_what_an_input_adds():
    x, w = torch.randn(3, 5, 7, generator=DRAW), torch.randn(7, 4, generator=DRAW)
    by_hand = (x[..., None] * w).norm(dim=-1)
    assert torch.allclose(wina_scores(x, w), by_hand, atol=1e-6)


def test_a_mask_leaves_out_the_share_it_says_at_every_token():
    scores = torch.rand(4, 6, 10, generator=DRAW)
    for sparsity, left in ((0.0, 10), (0.25, 8), (0.3, 7), (0.99, 1), (1.0, 0)):
        mask = kept(scores, sparsity)
        assert (mask.sum(-1) == left).all()
        if 0 < left < 10:
            assert (
                scores.masked_fill(~mask, 2).amin(-1) >= scores.masked_fill(mask, -1).amax(-1)
            ).all()
    with pytest.raises(MetricError, match="a share from 0"):
        kept(scores, 1.5)


def test_under_orthogonal_rows_no_mask_of_its_size_errs_less():
    from itertools import combinations

    basis = torch.linalg.qr(torch.randn(8, 8, generator=DRAW)).Q
    w = basis[:6] * torch.tensor([0.1, 3, 1, 5, 0.5, 2])[:, None]
    x = torch.randn(6, generator=DRAW)
    errors = {c: float((x[list(c)] @ w[list(c)]).norm()) for c in combinations(range(6), 3)}
    dropped = (~kept(wina_scores(x, w), 0.5)).nonzero().flatten().tolist()
    assert errors[tuple(dropped)] == pytest.approx(min(errors.values()))
    by_size = (~kept(x.abs(), 0.5)).nonzero().flatten().tolist()
    assert errors[tuple(by_size)] >= errors[tuple(dropped)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "falcon-grouped"])
def test_norms_are_of_all_that_reads_a_site(family):
    hf = tiny.shared(family)
    model = interp.load(hf, check=False)
    at = model.weights.layer(1)
    gated = model.anatomy.blocks[1].gate is not None
    ups = [at.W_in, at.W_gate] if gated else [at.W_in]
    assert torch.allclose(
        read_norms(model, "L1.mlp.input"), torch.cat(ups, 1).norm(dim=1), atol=1e-5
    )
    assert torch.allclose(read_norms(model, "L1.mlp_post"), at.W_out.norm(dim=1), atol=1e-5)
    assert torch.allclose(read_norms(model, "L1.z"), at.W_O.flatten(0, 1).norm(dim=1), atol=1e-5)
    qkv = torch.cat([w[h] for w in (at.W_Q, at.W_K, at.W_V) for h in range(len(w))], 1)
    assert torch.allclose(read_norms(model, "L1.attn.input"), qkv.norm(dim=1), atol=1e-5)
    with pytest.raises(MetricError, match="not what a matrix of a block reads"):
        read_norms(model, "L1.resid_pre")


def test_nothing_left_out_is_the_run_itself_and_the_cache_shows_what_was(demo, texts):
    plain = demo.run(texts[:2]).logits
    for method in METHODS:
        edits = sparsified(demo, 0.0, ("L*.mlp_post", "L*.z"), method=method)
        assert torch.equal(demo.run(texts[:2], edit=edits).logits, plain)
        edits = sparsified(demo, 0.5, ("L1.mlp_post", "L1.z"), method=method)
        cache = demo.run(texts[:1], edit=edits, save=["L1.mlp_post", "L1.z"]).cache
        left = (cache["L1.mlp_post"] != 0).sum(-1)  # a GELU is 0 here and there by itself
        assert left.max() <= 384
        assert left.min() > 375
        assert ((cache["L1.z"].flatten(2) != 0).sum(-1) == 96).all()


def test_random_inputs_depend_on_seed_and_row_alone(demo, texts):
    edits = sparsified(demo, 0.5, method="random", seed=3)
    whole = demo.run(texts[:4], edit=edits).logits
    assert torch.equal(demo.run(texts[:4], edit=edits, batch=4).logits, whole)
    assert torch.allclose(demo.run(texts[:4], edit=edits, batch=1).logits, whole, atol=1e-4)
    other = demo.run(texts[:4], edit=sparsified(demo, 0.5, method="random", seed=4)).logits
    assert not torch.allclose(other, whole, atol=1e-2)
    assert SparsifyAtRandom(0.5, 1).rows(2, 4, 9).first_row == 2


def test_scores_lose_far_less_than_chance(demo, texts, tmp_path):
    found = sparsity_losses(demo, texts, (0.5, 0.8), progress=False)
    wina, magnitude, random = found.loss - found.dense.mean()
    assert (wina < 0.1 * random).all()
    assert (magnitude < 0.1 * random).all()
    assert found.to_frame().shape == (6, 4)
    again = SparsityLosses.load(found.save(tmp_path / "s.safetensors"))
    assert torch.equal(again.per_prompt, found.per_prompt)
    assert again.methods == found.methods
    labels = {text.get_text() for text in found.plot().axes[0].get_legend().get_texts()}
    assert labels >= set(METHODS)


def test_wina_does_not_see_a_rescaling_that_changes_nothing_and_magnitude_falls_for_it(demo, texts):
    """z times c and W_O by c: the same function, and norms that tell what |x| no longer does."""
    c = torch.exp(torch.randn(6, 1, 32, generator=torch.Generator().manual_seed(1)))
    scaled = {}
    for i in range(4):
        scaled[f"L{i}.W_V"] = lambda w: w * c
        scaled[f"L{i}.b_V"] = lambda b: b * c[:, 0]
        scaled[f"L{i}.W_O"] = lambda w: w / c.mT
    before = sparsity_losses(demo, texts[:8], (0.6,), "L*.z", progress=False)
    with demo.edited(scaled):
        after = sparsity_losses(demo, texts[:8], (0.6,), "L*.z", progress=False)
    assert torch.allclose(after.dense, before.dense, atol=1e-4)
    assert torch.allclose(after.per_prompt[0], before.per_prompt[0], atol=1e-3)
    added = after.loss[:, 0] - after.dense.mean()
    assert added[0] < 0.5 * added[1]


def test_where_all_norms_are_equal_wina_is_magnitude(demo, texts):
    ones = Sparsify(torch.full((768,), 3.0), 0.5)
    same = sparsified(demo, 0.5, "L2.mlp_post", method="magnitude")
    a = demo.run(texts[:1], edit={"L2.mlp_post": ones}).logits
    assert torch.equal(a, demo.run(texts[:1], edit=same).logits)


@pytest.mark.bad_input
def test_what_does_not_fit_is_refused(demo, texts):
    with pytest.raises(RunError, match="Sparsify was given 5 norms"):
        demo.run(texts[:1], edit={"L0.mlp_post": Sparsify(torch.ones(5), 0.5)})
    with pytest.raises(MetricError, match=r"expected \[\.\.\., d_in\]"):
        wina_scores(torch.ones(2, 3), torch.ones(4, 3))
    with pytest.raises(MetricError, match="method='top'"):
        sparsified(demo, 0.5, method="top")
    with pytest.raises(MetricError, match="no sparsities"):
        sparsity_losses(demo, texts, ())
    with pytest.raises(MetricError, match="a prompt of one token"):
        sparsity_losses(demo, torch.tensor([[5]]))
