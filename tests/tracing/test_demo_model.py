"""On the shipped model a fact lies with its subject early and at the last token late."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import interp
from interp.tracing.verb import trace


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def facts(model):
    return interp.prompts.capitals(model, n=24, seed=0)


def test_both_sites_of_a_fact(model, facts):
    result = trace(model, facts, samples=5).by_role()
    effect = result.indirect_effect()
    kinds, places = (list(axis.labels) for axis in (result.axes[0], result.axes[2]))
    states, mlp, attn = (effect[kinds.index(kind)] for kind in ("states", "mlp", "attn"))
    subject, end = places.index("last subject token"), places.index("last token")
    assert result.total_effect > 0.8
    assert states[0, subject] > 0.5  # the early site
    assert states[-2, end] > 0.5  # the late site
    assert states[-2, subject] < 0.1  # by then it has been fetched
    assert mlp[0, subject] > 0.5  # an MLP enriches the subject
    assert attn[2, end] > 0.5  # attention carries it over
    assert mlp[2:, subject].abs().max() < 0.1


def test_the_untrained_twin_has_no_such_sites(model, facts):
    twin = model.random_twin()
    own = replace(facts, answers=None, foils=None)  # whatever it says itself
    for prompts in (own, facts):
        result = trace(twin, prompts, samples=5, only_known=False)
        assert result.by_role().indirect_effect().nan_to_num().abs().max() < 0.01


def test_the_subjects_spread_can_be_measured_over_given_names(model, facts):
    names = ["France", "Japan", "Peru"]
    result = trace(model, facts.subset([0, 1]), subjects=names, samples=1, kinds=("states",))
    ids = torch.cat([model.to_tokens(name, bos=False)[0, :1] for name in names])
    assert result.std == pytest.approx(3 * float(model.W_E[ids].std()), rel=1e-5)
    figure = result.plot()
    assert "corrupted" in figure.get_suptitle()
