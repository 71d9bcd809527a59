"""On models compiled from programs, scores equal those of independent codes (tests/cases)."""

from __future__ import annotations

import pytest
import torch

import interp
from tests.cases import CASES, load_case


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", CASES)
def test_exact(name, ablation):
    case = load_case(name)
    model, prompts = case.model(), case.prompts()
    for kind, tolerance in (("linear", 1e-9), ("l2", 1e-5)):  # l2: to float32 logits
        scores = interp.attribute(
            model, prompts, "edges", method="exact", ablation=ablation, batch=len(prompts),
            metric=case.as_metric(kind),
        )  # fmt: skip
        real = scores.graph.real
        assert list(scores.graph.edges) == case.truth["edges"]
        golden = case.golden[f"edge_{ablation}_{kind}"]
        assert float((scores.values - golden)[real].abs().max()) < tolerance


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("eap", {"method": "eap"}),
        ("eap_ig5_left", {"method": "eap-ig", "steps": 5}),
        ("eap_ig5_right", {"method": "eap-ig", "steps": 5, "alphas": "right"}),
    ],
)
def test_gradients(name, key, options):
    case = load_case(name)
    model, prompts = case.model(), case.prompts()
    scores = interp.attribute(
        model, prompts, "edges", batch=len(prompts), metric=case.as_metric("linear"), **options
    )
    stable = scores.graph.real.clone()
    if f"{key}_unstable" in case.golden:
        stable &= ~case.golden[f"{key}_unstable"].bool()
    golden = case.golden[key]
    worst = (scores.values - golden)[stable].abs() / golden[stable].abs().clamp(min=1e-9)
    assert float(worst.max()) < 1e-6
    assert int(stable.sum()) > 0.5 * int(scores.graph.real.sum())


@pytest.mark.parametrize("name", CASES)
def test_baselines(name):
    case = load_case(name)
    scores = interp.attribute(
        case.model(), case.prompts(), "edges", method="eap", batch=len(case.prompts()),
        metric=case.as_metric("linear"),
    )  # fmt: skip
    for own, key in ((scores.full, "metric_clean"), (scores.empty, "metric_corrupted")):
        golden = torch.as_tensor(case.golden[key])
        assert float(own.mean()) == pytest.approx(float(golden.mean()), abs=1e-6)
