"""The demo finds what the shipped model has, and nothing in its untrained twin."""

import json

import pytest

import interp
from interp.demo.page import write_report
from interp.demo.tour import take_tour
from interp.tracing.roles import ROLES


@pytest.fixture(scope="module")
def tour():
    return take_tour(interp.load("demo"), n=48, progress=False)


@pytest.fixture(scope="module")
def twin_tour():
    return take_tour(interp.load("demo").random_twin(), n=16, progress=False)


def test_patching_recovers_the_fact_early_at_the_subject_and_late_at_the_end(tour):
    sites = tour.sites()
    last = tour.model.n_layers - 1
    assert sites["subject"]["recovered"] > 0.9
    assert sites["subject"]["layer"] < last
    assert sites["END"]["recovered"] > 0.9
    assert sites["END"]["layer"] == last
    shares = tour.named.normalized()
    assert float(shares[0, 1]) < 0.05
    assert float(shares[last, 0]) < 0.1


def test_tracing_finds_both_sites(tour):
    effects = tour.traced.by_role().select(kind="states").indirect_effect()
    assert float(effects[0, ROLES.index("last subject token")]) > 0.5
    assert float(effects[-2, ROLES.index("last token")]) > 0.5
    assert any(said.startswith("tracing:") for said in tour.findings())


def test_heads_that_look_back_are_found_and_matter(tour):
    induction = tour.heads.found("induction")
    assert induction
    assert tour.heads.found("previous_token")
    assert max(score for _, score in tour.heads.top("induction")) >= 0.6
    model = tour.model
    rows = interp.prompts.induction(model, 64, 5)
    plain = interp.metrics.evaluate("accuracy", model.run(rows).logits, rows).mean()
    ablated = model.run(rows, edit={f"{head}.z": interp.Zero() for head in induction})
    others = [f"L{l}.H{h}" for l in range(model.n_layers) for h in range(model.n_heads)]
    spared = [head for head in others if head not in induction][-len(induction) :]
    control = model.run(rows, edit={f"{head}.z": interp.Zero() for head in spared})
    drop, null = (float(plain - interp.metrics.evaluate("accuracy", run.logits, rows).mean())
                  for run in (ablated, control))  # fmt: skip
    assert drop > 0.3
    assert drop > 2 * null


def test_every_task_beats_its_twin(tour):
    for task in tour.tasks:
        assert task.value > task.control, task
        assert task.low <= task.value <= task.high


def test_the_untrained_twin_yields_no_finding(twin_tour):
    assert twin_tour.findings() == []
    assert not twin_tour.knows_facts
    assert twin_tour.summary()["patching"] is None
    assert twin_tour.traced is None


def test_the_report_stands_alone(tour, twin_tour, tmp_path):
    written = write_report(tour, tmp_path / "demo")
    page = written["report"].read_text()
    assert "https://" not in page
    assert "http://" not in page
    assert page.count("<img") == len(list(written["figures"].glob("*.png"))) == 9
    assert page.count("data:image/png;base64,") == 9
    assert len(list(written["figures"].glob("*.svg"))) == 9
    summary = json.loads(written["summary"].read_text())
    for finding in summary["findings"]:
        assert finding.split(":")[0] in page
    assert summary["weights_hash"] == tour.model.weights_hash
    loaded = interp.PatchResult.load(written["results"] / "resid.safetensors")
    assert loaded.values.tolist() == tour.resid.values.tolist()

    empty = write_report(twin_tour, tmp_path / "random")
    text = empty["report"].read_text()
    assert "None. No head looks back" in text
    assert not list(empty["figures"].glob("patch_*"))
