"""Steering on the demo model: the right direction moves the answer, random ones do not."""

import csv

import pytest
import torch

import interp
from interp.errors import MetricError, ModelError, ResultError, RunError
from interp.paths import data_dir
from interp.steering.contrast import steering_vector
from interp.steering.result import SteeringResult
from interp.steering.steer import steer
from tests import tiny

SITE = "L3.resid_pre"
NEUTRAL = [
    "The war lasted from the year 1732 to the year 1745",
    "When Mary and John went to the store, John gave a book to Mary",
]


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def countries():
    text = (data_dir() / "prompts" / "countries.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[i] for i in order]


@pytest.fixture(scope="module")
def vector(model, countries):
    """Which relation is asked for: made on 40 countries and one template of each."""
    names = [row["country"] for row in countries[:40]]
    return steering_vector(
        model, [f"The capital of {name} is" for name in names],
        [f"The language of {name} is" for name in names], SITE,
    )  # fmt: skip


def asked(model, rows, template):
    rows = [row for row in rows if row["capital"] != row["language"]]
    return model.prompts(
        [template.format(row["country"]) for row in rows],
        answers=[" " + row["capital"] for row in rows],
        foils=[" " + row["language"] for row in rows],
    )


@pytest.mark.parametrize("template", ["The capital of {} is", "Visitors to {} often hear"])
def test_the_vector_moves_the_metric_at_each_of_five_strengths_and_random_ones_do_not(
    model, countries, vector, template
):
    heldout = asked(model, countries[40:62], template)
    result = steer(model, heldout, vector, draws=19, neutral=NEUTRAL[:1])
    row = result.summary().iloc[0]
    assert row["monotone"]
    assert row["spearman"] == pytest.approx(1.0)
    assert row["p_value"] == pytest.approx(1 / 20)
    assert row["slope"] > 4  # logits for each unit of strength
    assert row["slope"] > 5 * row["control_slope"]
    steps = result.control[0].diff(dim=-1)
    rising = (steps > 0).all(-1)
    assert float(rising.float().mean()) < 0.2
    # Both ends are on the side they were pushed to, and no random vector gets that far.
    assert result.values[0, 0] < 0 < result.values[0, -1]
    assert float((result.control[0, :, -1] - result.values[0, -1]).max()) < 0
    assert float(vector.reliability) > 0.95
    kl = result.side_effects[0, :, 0]
    assert float(kl[2]) == 0
    assert float(kl.max()) < 1.0


def test_the_random_twin_is_not_steered(model, countries):
    twin = model.random_twin()
    names = [row["country"] for row in countries[:40]]
    v = steering_vector(twin, [f"The capital of {name} is" for name in names],
                        [f"The language of {name} is" for name in names], SITE)  # fmt: skip
    result = steer(twin, asked(twin, countries[40:60], "The capital of {} is"), v, draws=0)
    assert float((result.values - result.baseline.mean()).abs().max()) < 0.5  # logits
    assert bool(result.p_value().isnan().all())


@pytest.fixture(scope="module")
def small():
    return interp.load(tiny.shared("llama"), check=False)


@pytest.fixture(scope="module")
def result(small):
    prompts = small.prompts(tiny.tokens(4, 6), answers=[5, 6, 7, 8], foils=[9, 10, 11, 12])
    v = steering_vector(small, tiny.tokens(6, 7, seed=1), tiny.tokens(6, 7, seed=2),
                        ["L0-1.resid_pre"], positions=-1)  # fmt: skip
    return steer(small, prompts, v, (2, -1, 0, 2), draws=3, neutral=tiny.tokens(18, 9, seed=5))


def test_each_point_equals_a_run_under_that_edit(small, result):
    prompts = small.prompts(tiny.tokens(4, 6), answers=[5, 6, 7, 8], foils=[9, 10, 11, 12])
    v = steering_vector(small, tiny.tokens(6, 7, seed=1), tiny.tokens(6, 7, seed=2),
                        ["L0-1.resid_pre"], positions=-1)  # fmt: skip
    assert result.strengths == (-1.0, 0.0, 2.0)
    for i, site in enumerate(v.sites):
        for j, dose in enumerate(result.strengths):
            logits = small.run(prompts, edit=v.at(site).edit(dose)).logits
            score = interp.metrics.evaluate("logit_diff", logits, prompts)
            assert torch.allclose(result.per_prompt[i, j], score, atol=1e-5)
            random = small.run(prompts, edit=v.random_like(2).at(site).edit(dose)).logits
            mean = interp.metrics.evaluate("logit_diff", random, prompts).mean()
            assert torch.allclose(result.control[i, 2, j], mean, atol=1e-5)
    assert torch.equal(result.per_prompt[:, 1], result.baseline.expand(2, 4))


def test_side_effects_are_kl_and_nll_on_the_neutral_text(small, result):
    ids = tiny.tokens(18, 9, seed=5)
    v = steering_vector(small, tiny.tokens(6, 7, seed=1), tiny.tokens(6, 7, seed=2),
                        "L1.resid_pre", positions=-1)  # fmt: skip
    plain, pushed = (small.run(ids, edit=edit).logits for edit in ({}, v.edit(2.0)))
    p, q = plain.log_softmax(-1), pushed.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).mean()
    nll = torch.nn.functional.cross_entropy(pushed[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert result.side_effects[1, 2].tolist() == pytest.approx([float(kl), float(nll)], rel=1e-4)
    own = torch.nn.functional.cross_entropy(plain[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert result.neutral_nll == pytest.approx(float(own), rel=1e-4)


def test_frame_summary_plot_and_file(result, tmp_path):
    frame = result.to_frame()
    assert len(frame) == 6
    assert list(frame.columns) == [
        "site", "strength", "value", "low", "high", "effect", "control_low", "control_mean",
        "control_high", "neutral_kl", "neutral_nll", "control_kl",
    ]  # fmt: skip
    assert frame["site"].tolist() == ["L0.resid_pre"] * 3 + ["L1.resid_pre"] * 3
    assert frame["effect"].iloc[1] == 0
    slopes = result.slope()
    x = torch.tensor(result.strengths)
    fit = torch.linalg.lstsq(torch.stack([x, torch.ones(3)], 1), result.values.T).solution[0]
    assert torch.allclose(slopes, fit, atol=1e-5)
    assert len(result.plot().axes) == 4
    loaded = SteeringResult.load(result.save(tmp_path / "s.safetensors"))
    for name, value in vars(result).items():
        same = getattr(loaded, name)
        assert torch.equal(same, value) if isinstance(value, torch.Tensor) else same == value, name
    assert "3 random vectors" in repr(result)


def test_text_alone_any_metric_and_no_controls(small):
    ids = tiny.tokens(3, 6)
    v = steering_vector(small, tiny.tokens(4, 6, seed=1), tiny.tokens(4, 6, seed=2),
                        "L1.resid_pre", positions=-1)  # fmt: skip
    alone = steer(small, ids, v, draws=0)
    assert alone.metric == "log_prob"
    assert "control_mean" not in alone.to_frame()
    assert len(alone.plot().axes) == 1
    for metric in ("kl", "nll", "accuracy", lambda logits, prompts: logits[:, -1, 5]):
        again = steer(small, ids, v, (0, 1), draws=1, metric=metric)
        assert bool(again.values.isfinite().all())
    assert float(steer(small, ids, v, (0, 1), draws=0, metric="kl").values[0, 0]) == 0


def test_positions_under_padding(small):
    rows = [[5, 6, 7, 8, 9, 10], [11, 12, 13]]
    v = steering_vector(small, tiny.tokens(4, 6, seed=1), tiny.tokens(4, 6, seed=2),
                        "L1.resid_pre", positions=-1)  # fmt: skip
    for options in ({"positions": "END"}, {"start": 1}, {"positions": [0, -1]}, {}):
        for pad in ("left", "right"):
            batch = interp.TokenBatch.stack(rows, pad=pad)
            both = steer(
                small, small.prompts(batch, answers=[5, 6]), v, (-1, 1), draws=0, **options
            )
            for i, row in enumerate(rows):
                one = small.prompts(torch.tensor([row]), answers=[5 + i])
                alone = steer(small, one, v, (-1, 1), draws=0, **options)
                assert torch.allclose(
                    both.per_prompt[0, :, i], alone.per_prompt[0, :, 0], atol=1e-4
                )


@pytest.mark.bad_input
def test_what_is_refused(small, result):
    v = steering_vector(small, tiny.tokens(4, 6, seed=1), tiny.tokens(4, 6, seed=2),
                        "L1.resid_pre", positions=-1)  # fmt: skip
    ids = tiny.tokens(2, 5)
    for strengths in ((1,), (), (1, 1), ("a", "b"), (0, float("nan")), 3):
        with pytest.raises(RunError, match="at least two different numbers"):
            steer(small, ids, v, strengths)
    with pytest.raises(RunError, match="vector= is a Tensor; expected a SteeringVector"):
        steer(small, ids, v.values[0])
    with pytest.raises(RunError, match="draws=-1"):
        steer(small, ids, v, draws=-1)
    with pytest.raises(RunError, match="give one of them"):
        steer(small, ids, v, positions=1, start=2)
    with pytest.raises(MetricError, match="needs foils"):
        steer(small, ids, v, metric="logit_diff")
    wide = interp.load(tiny.build("llama", hidden_size=48), check=False)
    with pytest.raises(ModelError, match="has 48 there"):
        steer(wide, ids, v)
    from interp.steering.figure import dose_response

    x = torch.zeros(9, 2)
    with pytest.raises(ResultError, match="9 sites do not fit"):
        dose_response((0, 1), ["a"] * 9, x, (x, x), x[:, None], baseline=0, title="", unit="")
