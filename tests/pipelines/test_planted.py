"""In a model whose weights were written by hand, the pipeline finds what was written, and no more."""

from __future__ import annotations

import pytest
import torch

from interp import pipelines
from interp.errors import CircuitError, ResultError, RunError
from interp.pipelines.composition import composition
from interp.pipelines.found import agreement, shortest
from interp.pipelines.screening import screened_scores, suspects
from interp.pipelines.tasks import induction as task
from tests.pipelines.planted import CIRCUIT, planted, scrambled

QUICK = {
    "n_random": 3,
    "completeness_sets": 1,
    "greedy_sets": 0,
    "minimality_sets": 1,
    "n_chance": 2,
}


@pytest.fixture(scope="module")
def finding():
    return pipelines.induction(
        planted(), n=16, period=12, seeds=2, twin=scrambled(), evaluation=QUICK, progress=False
    )


def test_exactly_the_planted_circuit_is_found(finding):
    assert finding.circuit.edges == CIRCUIT
    assert finding.evaluation.faithfulness == pytest.approx(1.0, abs=1e-3)
    assert finding.stability == 1.0


def test_the_twin_has_no_circuit_that_two_draws_agree_on(finding):
    assert finding.twin_stability < 0.5
    assert abs(finding.twin["clean"]) < 0.2 < finding.clean


def test_roles_are_the_planted_ones(finding):
    assert finding.roles.by_node() == {
        "a0.h0": ("previous token", "K-composition"), "a1.h0": ("induction",)
    }  # fmt: skip
    assert all(finding.roles.in_twin(role) == () for role in finding.roles.names)
    assert finding.circuit.roles["a1.h0"] == ("induction",)


def test_the_evaluation_is_on_prompts_that_the_circuit_never_saw(finding):
    assert finding.circuit.prompts["hash"] != finding.evaluation.provenance.prompts_hash
    assert finding.evaluation.notes == ()


def test_a_finding_survives_its_files(finding, tmp_path):
    again = pipelines.Finding.load(finding.save(tmp_path / "found"))
    assert repr(again) == repr(finding)
    assert again.findings() == finding.findings()
    assert again.circuit.edges == finding.circuit.edges
    assert torch.equal(again.roles.values.nan_to_num(), finding.roles.values.nan_to_num())
    assert again.steps["k_composition"].top(1).equals(finding.steps["k_composition"].top(1))
    assert again.draws == finding.draws


def test_what_is_no_finding_is_refused(tmp_path):
    with pytest.raises(ResultError, match="holds no finding"):
        pipelines.Finding.load(tmp_path)


def test_a_model_without_the_behaviour_has_no_circuit_and_no_roles():
    found = pipelines.induction(
        scrambled(3), n=16, period=12, seeds=1, twin=scrambled(4), evaluation=QUICK, progress=False
    )
    assert found.circuit is None
    assert found.evaluation is None
    assert found.roles.by_node() == {}
    assert found.notes == ("scrambled 3 does not show induction: no circuit was looked for",)
    with pytest.raises(ResultError, match="no node has a role"):
        found.plot()


def test_frames_and_figures(finding):
    frame = finding.to_frame()
    assert set(frame["role"]) == {"previous token", "induction", "K-composition"}
    assert (frame["value"] >= frame["threshold"]).all()
    assert (frame["value"] > 2 * frame["twin"]).all()
    for drawn in (finding.plot(), finding.steps["k_composition"].plot()):
        assert drawn.axes[0].get_title()


def test_composition_is_lost_attention_through_the_planted_path():
    model = planted()
    pairs = task._cue_alone(model, task.prompts(model, 8, 0, period=12))
    found = composition(
        model, pairs, ["a0.h0", "a0.h1"], "k", query="END", key="B1", progress=False
    )
    through, beside = found.lost[:, 1]
    assert float(found.clean[1, 0]) > 0.9
    assert float(through[0]) > 0.9
    assert float(through[1]) == float(beside.abs().max()) == 0.0
    assert found.lost[:, 0].isnan().all()
    assert found.top(1).receiver[0] == "a1.h0"
    queries = composition(model, pairs, ["a0.h0"], "q", query="END", key="B1", progress=False)
    assert float(queries.lost[0, 1].abs().max()) < 1e-6


def test_screened_scores_are_exact_and_miss_no_planted_edge():
    from interp.attribution.verb import attribute
    from interp.graph import Setting

    model = planted()
    pairs = task.prompts(model, 8, 0, period=12)
    setting = Setting.of(model, pairs)
    some, every = (
        screened_scores(setting, progress=False),
        attribute(model, pairs, "edges", method="exact"),
    )
    scored = some.values.isfinite()
    assert 4 <= int(scored.sum()) < int(every.graph.full.sum())
    assert torch.allclose(some.values[scored], every.values[scored], atol=1e-5)
    left_out = every.graph.full & ~scored
    assert float(every.values[left_out].abs().max()) < 0.01 * 10
    assert set(every.graph.names(suspects(setting))) >= CIRCUIT
    assert shortest(model, pairs, some, faithful=0.95)[0] <= 6


def test_agreement_of_nothing_is_nothing(finding):
    empty = finding.circuit - finding.circuit
    assert agreement((empty, empty)) == (0.0,)
    assert agreement((finding.circuit, empty)) == (0.0,)
    assert agreement((finding.circuit,)) == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": 0}, "seeds=0; expected a number of draws"),
        ({"faithful": 1.5}, "faithful=1.5; expected a share"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    with pytest.raises(RunError, match=said):
        pipelines.induction(planted(), n=8, period=12, twin=scrambled(), progress=False, **options)


def test_an_unknown_role_names_the_nearest(finding):
    with pytest.raises(ResultError, match="nearest: 'induction'"):
        finding.roles.found("inductoin")
    with pytest.raises(CircuitError):
        finding.circuit.with_role("name mover")
