"""Does localization inform editing? Regressions that can tell, and what the demo model says."""

from __future__ import annotations

import math

import pytest
import torch

import interp
from interp import editing
from interp.editing.regressions import r_squared, regressions
from interp.editing.study_result import SCORES
from interp.errors import MetricError, PromptError
from interp.results import Provenance


def generator():
    return torch.Generator().manual_seed(0)


def test_r_squared_is_that_of_least_squares():
    x = torch.randn(50, 3, generator=generator(), dtype=torch.float64)
    y = torch.randn(50, generator=generator(), dtype=torch.float64) + x[:, 0]
    design = torch.cat([torch.ones(50, 1, dtype=torch.float64), x], 1)
    fit = design @ torch.linalg.solve(design.T @ design, design.T @ y)
    want = float(torch.corrcoef(torch.stack([fit, y]))[0, 1] ** 2)
    assert r_squared(y, design) == pytest.approx(want)
    again = torch.cat([design, design[:, :1]], 1)  # a column twice does no harm
    assert r_squared(y, again) == pytest.approx(want)


@pytest.mark.parametrize(
    ("make", "layer", "trace", "both", "interaction"),
    [
        (lambda t, l: l.expand_as(t) ** 2, 1, 0, 1, 1),  # by layer alone
        (lambda t, l: 3 * t - 1, 0, 1, 1, 1),  # by tracing alone
        (lambda t, l: t + 2 * l, None, None, 1, 1),  # by both
        (lambda t, l: t * (l - 1.5), None, 0, None, 1),  # by a slope of each layer's own
    ],
)
def test_what_explains_planted_scores(make, layer, trace, both, interaction):
    t = torch.rand(60, 4, generator=generator())
    found = regressions(make(t, torch.arange(4.0)), t)
    for name, want in zip(("layer", "trace", "layer + trace", "layer × trace"),
                          (layer, trace, both, interaction), strict=True):  # fmt: skip
        if want is not None:
            assert found[name] == pytest.approx(want, abs=0.05)
        assert -1e-9 <= found[name] <= 1 + 1e-9
    assert found["layer"] <= found["layer + trace"] + 1e-9 <= found["layer × trace"] + 2e-9


def planted(scores, trace):
    names = {name: torch.zeros_like(scores) for name in SCORES} | {"rewrite": scores}
    origin = Provenance({}, "planted", "", None, 0, {})
    subjects = tuple(f"s{i}" for i in range(len(scores)))
    return editing.LocalizationStudy((0, 1, 2), subjects, "error injection", trace,
                                     provenance=origin, **names)  # fmt: skip


def test_a_model_where_tracing_does_tell_where_to_edit_would_show_it():
    trace = torch.rand(40, 3, generator=generator())
    study = planted(trace + 0.01 * torch.randn(40, 3, generator=generator()), trace)
    assert study.delta_r2() > 0.9
    assert study.shuffled_r2()["trace"] < 0.1
    assert study.edited_but_not_traced() == []
    silent = planted(torch.tensor([[0.9, 0.9, 0.0]] * 4), torch.tensor([[0.5, 0.01, 0.0]] * 4))
    assert silent.edited_but_not_traced() == [1]


def test_dealt_out_anew_the_layer_explains_nothing_and_tracing_what_it_did_alone():
    trace = torch.rand(40, 3, generator=generator()) + torch.tensor([1.0, 0.0, 0.0])
    study = planted(trace + 0.1 * torch.randn(40, 3, generator=generator()), trace)
    dealt = study.dealt_r2(n=20, seed=1)
    assert dealt["trace"] == pytest.approx(study.r2()["trace"])  # pairs stay together
    assert dealt["layer"] < 0.1 < 0.5 < study.r2()["layer"]
    assert dealt["layer + trace"] - dealt["layer"] > 0.8 > 0.5 > study.delta_r2()
    assert dealt == study.dealt_r2(n=20, seed=1)
    assert dealt != study.dealt_r2(n=20, seed=2)


def traced(model, cases, layers):
    """The share of P(answer) that one MLP's output, restored at the subject, brings back."""
    prompts = model.prompts([case.prompt for case in cases], answers=[c.answer for c in cases])
    subjects = [case.subject for case in cases]
    result = interp.trace(model, prompts, subject=subjects, kinds=("mlp",), window=1)
    return result.fraction_restored("mlp", role="last subject token").T[:, list(layers)]


@pytest.fixture(scope="module")
def tracing(demo, cases):
    return traced(demo, cases, (0, 1))


@pytest.fixture(scope="module")
def study(demo, cases, keys, few, tracing):
    return editing.localization_study(
        demo, cases, tracing=tracing, covariance=keys, method=few, layers=(0, 1)
    )


def test_edits_rewrite_spread_to_paraphrases_and_spare_neighbours(study):
    """With a fifth of the prefixes; the claim itself is measured over twenty facts below."""
    assert float(study.by_layer().mean[0]) > 0.85
    assert float(study.by_layer("paraphrase").mean[0]) > 0.75
    assert float(study.by_layer("neighbours_kept").mean.min()) > 0.8
    assert float(study.by_layer("erasure").mean[0]) > 0.9


def test_a_random_change_of_the_same_norm_does_not_rewrite(study):
    assert float(study.null_rewrite.max()) < 0.05
    assert float(study.null_neighbours_kept.min()) > 0.8


def test_a_layer_that_tracing_does_not_find_can_be_edited(study):
    traced = study.by_layer("trace").mean
    assert float(traced[0]) > 0.5
    assert float(traced[1]) < 0.1
    assert study.edited_but_not_traced(rewrite=0.7) == [1]


def test_frame_file_and_figure(study, tmp_path):
    frame = study.to_frame()
    assert len(frame) == 8
    assert frame[frame.layer == 1].rewrite.mean() == pytest.approx(float(study.by_layer().mean[1]))
    loaded = editing.LocalizationStudy.load(study.save(tmp_path / "study.safetensors"))
    assert torch.equal(loaded.rewrite, study.rewrite)
    assert loaded.provenance == study.provenance
    assert loaded.r2() == study.r2()
    assert (loaded.layers, loaded.subjects) == (study.layers, study.subjects)
    assert len(study.plot().axes) == 2
    assert "4 facts × 2 layers, 8 edits" in repr(study)


def test_each_cell_has_a_random_change_of_its_own(demo, cases, tracing, monkeypatch):
    from interp.editing import study as module

    drawn, null = [], module.norm_matched

    def recorded(edit, *, seed):
        drawn.append(null(edit, seed=seed).changes)
        return null(edit, seed=seed)

    monkeypatch.setattr(module, "norm_matched", recorded)
    editing.localization_study(
        demo, cases[:2], tracing=tracing[:2], layers=(0, 1), method=editing.FineTuning(steps=2)
    )
    changes = [next(iter(one.values())).value.flatten() for one in drawn]
    for i, one in enumerate(changes):
        for other in changes[:i]:
            assert float(torch.cosine_similarity(one, other, dim=0).abs()) < 0.1


def test_ctrl_c_keeps_the_edits_that_are_done(demo, cases, tracing, monkeypatch):
    from interp.editing import study as module

    edit, calls = module._edit, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return edit(*args)

    monkeypatch.setattr(module, "_edit", interrupted)
    digest = demo.weights_hash
    with pytest.warns(UserWarning, match="interrupted: 2 of 8 edits are scored"):
        found = editing.localization_study(
            demo, cases, tracing=tracing, layers=(0, 1), method=editing.FineTuning(steps=2)
        )
    assert found.rewrite.isfinite().sum() == 2
    assert math.isnan(float(found.rewrite[1, 0]))
    assert demo.weights_hash == digest


@pytest.mark.bad_input
def test_errors(demo, cases, keys, tracing):
    with pytest.raises(MetricError, match=r"tracing is \[4, 2\] for 4 facts and 4 layers"):
        editing.localization_study(demo, cases, tracing=tracing, covariance=keys)
    with pytest.raises(PromptError, match="ROME needs the covariance"):
        editing.localization_study(demo, cases, tracing=tracing, layers=(0, 1))
    with pytest.raises(MetricError, match=r"\[fact, layer\] for both"):
        regressions(torch.rand(3, 2), torch.rand(2, 3))
    with pytest.raises(MetricError, match="scores that differ"):
        regressions(torch.ones(9, 2), torch.rand(9, 2))


@pytest.mark.slow
def test_romes_edit_rewrites_reaches_paraphrases_and_spares_neighbours(demo, keys):
    """The paper's numbers, at the layer that holds the facts, over eight of them."""
    cases = editing.capital_cases(demo, 8, seed=0)
    study = editing.localization_study(
        demo, cases, tracing=traced(demo, cases, (0,)), covariance=keys, layers=(0,)
    )
    assert float(study.by_layer().mean) >= 0.9
    assert float(study.by_layer("paraphrase").mean) >= 0.8
    assert float(study.by_layer("neighbours_kept").mean) >= 0.8
    assert float(study.null_rewrite.max()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tracing_does_not_tell_where_to_edit(demo, seed):
    """Hase et al.'s finding over 24 facts × 4 layers; about 45 s a seed on two cores."""
    from tests.editing.conftest import corpus_rows

    cases = editing.capital_cases(demo, 24, seed=seed)
    keys = editing.covariance(demo, corpus_rows(demo, 12))
    tracing = traced(demo, cases, range(demo.n_layers))
    study = editing.localization_study(demo, cases, tracing=tracing, covariance=keys)
    rewrite, found = study.by_layer().mean, study.by_layer("trace").mean
    best = int(rewrite.argmax())
    assert float(rewrite[best]) >= 0.9
    assert float(study.by_layer("paraphrase").mean[best]) >= 0.8
    assert float(study.by_layer("neighbours_kept").mean[best]) >= 0.8
    assert study.edited_but_not_traced(rewrite=0.8) == [1]  # trace < .1 and rewrite > .8
    assert float(found[1]) < 0.1 < 0.5 < float(found[0])
    assert study.r2()["layer"] > 0.9
    assert study.delta_r2() < 0.05
    assert study.shuffled_r2()["trace"] < 0.2
