"""Correlations equal numpy's, a planted pair stands out, and shuffled pairs say what chance gives."""

from importlib import import_module

import numpy as np
import pytest
import torch

import interp
from interp.errors import BudgetError, ResultError, RunError
from interp.prompts import facts
from interp.surveys import Correlation, correlation
from interp.surveys.correlation import Correlate
from tests.surveys.rows import CUTS, Cut, synthetic


@pytest.mark.parametrize("lengths", CUTS)
def test_it_is_numpys(lengths):
    rows = synthetic()
    found = correlation(Cut(rows, lengths), "L0.mlp_post", "L1.mlp_post")
    joint = torch.cat([rows["L0.mlp_post"], rows["L1.mlp_post"]], 1).double().numpy()
    expected = np.corrcoef(joint.T)[:7, 7:]
    assert np.allclose(found.values.numpy(), expected, atol=1e-7)


def test_a_large_common_offset_costs_no_digits():
    rows = synthetic()
    rows.tensors["L0.mlp_post"].add_(4096.0)
    found = correlation(Cut(rows, (9,)), "L0.mlp_post", "L1.mlp_post").values.numpy()
    joint = torch.cat([rows["L0.mlp_post"], rows["L1.mlp_post"]], 1).double().numpy()
    assert np.allclose(found, np.corrcoef(joint.T)[:7, 7:], atol=1e-7)


@pytest.mark.parametrize("lengths", CUTS)
def test_the_null_pairs_tokens_with_those_of_other_documents(lengths):
    rows, shift = synthetic(), 20
    found = correlation(Cut(rows, lengths), "L0.mlp_post", "L1.mlp_post", shift=shift)
    other = rows.document[shift:] != rows.document[:-shift]
    a = rows["L0.mlp_post"][shift:][other].double().numpy()
    b = rows["L1.mlp_post"][:-shift][other].double().numpy()
    expected = np.abs(np.corrcoef(np.concatenate([a, b], 1).T)[:7, 7:]).max(1)
    assert found.n_null == len(a)
    assert np.allclose(found.null.numpy(), expected, atol=1e-6)
    assert found.null_max == pytest.approx(expected.max(), abs=1e-6)


def test_planted_pairs_are_found_and_others_are_not():
    rows = synthetic(2000)
    generator = torch.Generator().manual_seed(9)
    rows.tensors["L0.z"] = torch.randn(2000, 3, 4, generator=generator)
    found = correlation(rows, "L1.mlp_post", "L0.z")
    assert float(found.values.abs().max()) < 1.5 * found.null_max  # nothing is there
    rows.tensors["L0.z"][:, 1, 2] -= 0.01 * rows["L1.mlp_post"][:, 5]
    top = correlation(rows, "L1.mlp_post", "L0.z").top(1)
    assert (top.a[0], top.b[0]) == ("L1.mlp_post.N5", "L0.H1.z#2")
    assert top.r[0] < -2 * found.null_max


def test_memory_does_not_grow_with_rows():
    plan = Correlate("L0.mlp_post", "L1.mlp_post", shift=64).on(synthetic(5).sites)
    state, sizes = None, []
    for seed in range(12):
        state = plan.update(state, synthetic(300, seed=seed))
        sizes.append(
            state.paired.products.nbytes + state.chance.products.nbytes
            + state.earlier.untyped_storage().nbytes() + state.documents.untyped_storage().nbytes()
        )  # fmt: skip
    assert len(set(sizes)) == 1


def test_a_site_with_itself_counts_each_pair_once():
    rows = synthetic()
    found = correlation(rows, "L1.mlp_post", "L1.mlp_post")
    assert torch.allclose(found.values.diagonal(), torch.ones(7))
    top = found.top(100)
    assert len(top) == 21
    assert not any(a == b for a, b in zip(top.a, top.b, strict=True))
    assert len(found.top(100, unit="L1.mlp_post.N2")) == 6


def test_a_constant_unit_has_no_correlation():
    rows = synthetic()
    rows.tensors["L0.mlp_post"][:, 2] = 1.5
    found = correlation(Cut(rows, (64,)), "L0.mlp_post", "L1.mlp_post")
    assert bool(found.values[2].isnan().all())
    assert bool(found.null[2].isnan())
    assert "L0.mlp_post.N2" not in set(found.to_frame()["a"])
    assert "L0.mlp_post.N2" not in set(found.top(100)["a"])


def test_one_document_has_no_null():
    rows = synthetic(200)
    rows.document.zero_()
    found = correlation(rows, "L0.mlp_post", "L1.mlp_post", shift=10)
    assert found.n_null == 0
    assert np.isnan(found.null_max)


def test_what_does_not_fit_is_refused_and_what_is_large_is_said(monkeypatch):
    rows, verb = synthetic(50), import_module("interp.surveys.correlation")
    monkeypatch.setattr(verb, "_LARGE", 100)
    with pytest.warns(UserWarning, match=r"7 × 7 units take 0.0 MiB while they are summed"):
        correlation(rows, "L0.mlp_post", "L1.mlp_post")
    monkeypatch.setattr(verb, "available", lambda device: 100)
    with pytest.raises(BudgetError, match="choose units with a_units="):
        correlation(rows, "L0.mlp_post", "L1.mlp_post")


def test_results_are_saved_whole_and_drawn(tmp_path):
    found = correlation(synthetic(), "L0.mlp_post", "L1.mlp_post", a_units=[3, 1], b_units=range(5))
    assert found.a_names == ("L0.mlp_post.N3", "L0.mlp_post.N1")
    loaded = Correlation.load(found.save(tmp_path / "a.safetensors"))
    assert torch.equal(loaded.values, found.values)
    assert (loaded.n_null, loaded.b_names) == (found.n_null, found.b_names)
    image = loaded.plot().axes[0].images[0]
    assert image.get_clim() == (-1.0, 1.0)
    assert image.get_array().shape == (2, 5)
    assert len(loaded.plot_best().axes[0].get_legend().get_texts()) == 2


def test_many_units_are_cut_to_the_strongest_pairs():
    def widen(x):
        return torch.cat([x, torch.sin(x * torch.arange(1, 8)), x.square()], 1).repeat(1, 3)

    found = correlation(synthetic(), "L0.mlp_post", "L1.mlp_post", a_transform=widen, b_transform=widen)  # fmt: skip
    axes = found.plot().axes[0]
    assert max(axes.images[0].get_array().shape) <= 40
    assert "40 strongest pairs" in axes.get_title().replace("\n", " ")


def test_in_texts_of_one_template_the_null_says_that_chance_gives_as_much():
    """Any neurons that follow the position correlate there; in mixed text those that are left are linked."""
    model = interp.load("demo")
    alike = [f"The capital of {c['country']} is {c['capital']}." for c in facts.countries()[:60]]

    def ask(corpus):
        stream = interp.stream(model, corpus, ["L1.mlp_post", "L2.mlp_post"], tokens=3000)
        return correlation(
            stream, "L1.mlp_post", "L2.mlp_post", a_units=range(100), b_units=range(100), shift=240
        )

    template, mixed = ask(alike), ask(interp.corpora.demo(60, seed=5))
    assert float(template.values.abs().nan_to_num(0).max()) > 0.95
    assert template.null_max > 0.9
    assert float(mixed.values.abs().nan_to_num(0).max()) > 0.9
    assert mixed.null_max < 0.5


def test_a_units_partner_is_never_itself():
    rows = synthetic(300)
    one = correlation(rows, "L1.mlp_post", "L1.mlp_post")
    assert (one.to_frame()["a"] != one.to_frame()["b"]).all()
    off = one.values.masked_fill(torch.eye(7, dtype=torch.bool), 0)
    assert f"largest |r| {float(off.abs().max()):.3f}" in repr(one)
    part = correlation(rows, "L1.mlp_post.N5", "L1.mlp_post")
    assert sorted(part.top(20)["b"]) == [f"L1.mlp_post.N{i}" for i in (0, 1, 2, 3, 4, 6)]
    some = correlation(rows, "L1.mlp_post", "L1.mlp_post", a_units=[4, 5], b_units=[1, 5, 4])
    pairs = {frozenset(pair) for pair in zip(some.top()["a"], some.top()["b"], strict=True)}
    named = [{1, 4}, {1, 5}, {4, 5}]
    assert pairs == {frozenset(f"L1.mlp_post.N{i}" for i in pair) for pair in named}
    assert len(some.top()) == 3


def test_two_dictionaries_on_one_site_keep_all_their_pairs():
    rows = synthetic(300)
    turn = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    found = correlation(rows, "L1.mlp_post", "L1.mlp_post",
                        a_transform=lambda x: x, b_transform=lambda x: x @ turn)  # fmt: skip
    assert len(found.top(100)) == 49
    assert not found.same
    both = correlation(rows, "L0.z", "L0.z", a_transform=lambda x: x[:, 0], b_units=[0, 1])
    assert len(both.top(100)) == 8


@pytest.mark.bad_input
def test_what_is_refused():
    rows = synthetic(50)
    with pytest.raises(RunError, match="expected 'value' or 'norm'"):
        correlation(rows, "L0.z", "L0.z", of="abs")
    for shift in (0, 1.5):
        with pytest.raises(RunError, match=f"shift={shift}"):
            correlation(rows, "L0.z", "L0.z", shift=shift)
    with pytest.raises(ResultError, match="no unit is called 'L0.H9.z'"):
        correlation(rows, "L0.z", "L0.z", of="norm").top(3, unit="L0.H9.z")
