"""Redundancy of layers: the formula by hand, a silenced layer, the paper's use of it, and the twin."""

from __future__ import annotations

import math

import pytest
import torch

import interp
from interp.errors import MetricError
from interp.surveys.redundancy import Redundancy, active_share, layer_importance, layer_redundancy
from tests import tiny


@pytest.fixture(scope="module")
def demo():
    return interp.load("demo")


@pytest.fixture(scope="module")
def texts():
    return [" ".join(t.split()[:40]) for t in interp.corpora.demo(40, seed=5).documents()]


def test_importance_is_one_less_the_cosine():
    generator = torch.Generator().manual_seed(0)
    x, f = torch.randn(2, 5, 8, generator=generator), torch.randn(2, 5, 8, generator=generator)
    by_hand = 1 - torch.cosine_similarity(x.double(), (x + f).double(), dim=-1)
    assert torch.allclose(layer_importance(x, f), by_hand)
    assert layer_importance(x, 3 * x).abs().max() < 1e-12
    assert torch.allclose(layer_importance(x, -2 * x), torch.full((2, 5), 2.0).double())
    assert layer_importance(torch.zeros(1, 4), torch.ones(1, 4)).isnan().all()


def test_activity_counts_what_is_above():
    x = torch.tensor([[1.0, 0.0, -1.0, 0.2], [0.0, 0.0, 0.0, 0.0]])
    assert active_share(x).tolist() == [0.5, 0.0]
    assert active_share(x, above=0.5).tolist() == [0.25, 0.0]


@pytest.mark.bad_input
def test_a_single_number_has_no_neurons():
    with pytest.raises(MetricError, match=r"expected \[\.\.\., d\]"):
        active_share(torch.tensor(3.0))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "mixtral"])
def test_what_is_read_is_what_the_layer_reads(family):
    model = interp.load(tiny.shared(family), check=False)
    ids = tiny.tokens(40, 7)
    found = layer_redundancy(model, ids, progress=False)
    cache = model.run(
        ids, save=["L*.resid_pre", "L*.attn_out", "L*.mlp_out", "L*.resid_post"]
    ).cache
    for i in range(model.n_layers):
        x, a, m, end = (
            cache[f"L{i}.{p}"].double() for p in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        middle = x if model.anatomy.parallel else x + a
        assert float(found.importance[0, i]) == pytest.approx(
            float(layer_importance(x, a).mean()), rel=1e-5
        )
        assert float(found.importance[1, i]) == pytest.approx(
            float(layer_importance(middle, m).mean()), rel=1e-5
        )
        assert float(found.blocks[i]) == pytest.approx(
            float(layer_importance(x, end - x).mean()), rel=1e-4
        )
    assert found.active.isnan().all() == (family == "mixtral")
    assert found.n_tokens == 280


def test_padding_does_not_count(demo):
    short, longer = (
        "The capital of France is Paris",
        "The capital of Japan is Tokyo. The capital of Peru is Lima",
    )
    both = layer_redundancy(demo, [short, longer], progress=False)
    alone = [layer_redundancy(demo, text, progress=False) for text in (short, longer)]
    mean = sum(one.importance * one.n_tokens for one in alone) / both.n_tokens
    assert both.n_tokens == sum(one.n_tokens for one in alone)
    assert torch.allclose(both.importance, mean, atol=1e-6)


def test_a_silenced_layer_is_the_least_important_and_a_turned_one_the_most(demo, texts):
    plain = layer_redundancy(demo, texts[:4], progress=False)
    with demo.edited(
        {"L1.W_O": lambda w: 0 * w, "L1.b_O": lambda b: 0 * b, "L2.W_out": lambda w: 30 * w}
    ):
        found = layer_redundancy(demo, texts[:4], progress=False)
    assert found.lowest(1) == ("L1.attn_out",)
    assert float(found.importance[0, 1]) == pytest.approx(0, abs=1e-9)
    assert plain.lowest(1) != ("L1.attn_out",)
    assert int(found.importance.flatten().argmax()) == 4 + 2


def test_the_layer_it_says_to_drop_costs_least_of_its_kind(demo, texts):
    found = layer_redundancy(demo, texts, progress=False)
    sites = [f"L{i}.attn_out" for i in range(4)]
    dropped = interp.ablate(
        demo, texts[:12], sites, method="zero", metric="nll", positions="all", progress=False
    )
    cost = (dropped.values - dropped.clean.mean()).tolist()
    assert sites[cost.index(min(cost))] == found.lowest(1, "attn_out")[0]
    order = found.importance[0].argsort()
    assert cost[int(order[0])] < 0.5 * sorted(cost)[1]


def test_activity_is_what_a_survey_of_the_corpus_says(demo, texts):
    found = layer_redundancy(demo, texts[:6], progress=False)
    post = demo.run(texts[:6], save="L2.mlp_post").cache["L2.mlp_post"]
    mask = demo.batch(texts[:6]).mask
    assert float(found.active[2]) == pytest.approx(float((post[mask] > 0).double().mean()))
    twin = layer_redundancy(demo.random_twin(check=False), texts[:6], progress=False)
    assert ((twin.active - 0.5).abs() < 0.05).all()
    assert float(found.active.mean()) < 0.35
    assert float(found.active.min()) < 0.15


def test_it_is_stored_drawn_and_refuses_what_is_not_there(demo, texts, tmp_path):
    found = layer_redundancy(demo, texts[:2], progress=False)
    again = Redundancy.load(found.save(tmp_path / "r.safetensors"))
    assert again.lowest(3) == found.lowest(3)
    assert list(found.to_frame().columns) == ["layer", "attn_out", "mlp_out", "block", "active"]
    assert len(found.plot().axes[0].lines) == 2
    assert math.isfinite(float(found.active[0]))
    with pytest.raises(MetricError, match="expected 1 to 4 layers"):
        found.lowest(5, "mlp_out")
    with pytest.raises(MetricError, match="expected 1 to 0 layers"):
        found.lowest(1, "z")
