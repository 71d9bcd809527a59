"""The faithfulness curve, CPR and CMD: by hand, and as MIB's code has them on compiled models."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.circuits.curve import FRACTIONS, curve
from interp.circuits.curve_result import FaithfulnessCurve
from interp.errors import CircuitError, GapError
from interp.graph import Graph
from interp.graph.setting import Setting
from tests.cases import CASES, load_case
from tests.circuits.formula import GRAPH, LAST, LEFT, Formula, either, scored

BEST = {LAST: -4.0, LEFT[0]: 3.0, LEFT[1]: -3.0}


def test_the_curve_of_a_formula():
    # 46 edges: n = 0, 0, 0, 0, 0, 2, 4, 9, 23, 46
    found = curve(scored(GRAPH, BEST), Formula(either, weights=(1.0, 3.0)))
    assert found.counts == (0, 0, 0, 0, 0, 2, 4, 9, 23, 46)
    assert found.faithfulness.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert found.cpr == pytest.approx(0.05 / 2 + 0.9)
    assert found.cmd == pytest.approx(0.049 + 0.05 / 2)
    assert found.smallest(0.9) == 4
    assert found.smallest(1.5) is None


def test_signed_order_takes_what_helps_first_and_may_overshoot():
    def formula(has):
        return 2 * has(LAST) - 3 * has(LEFT[1])

    scores = scored(GRAPH, {LAST: -2.0, LEFT[1]: 3.0})
    found = curve(scores, Formula(formula), fractions=(0.03, 0.05, 1), signed=True)
    assert found.counts == (1, 2, 46)
    assert found.faithfulness.tolist() == [-2, -2, 1]
    assert found.cmd == pytest.approx(0.02 * 3 + 0.95 * 3 / 2)  # |1 - f|, and no clipping
    by_size = curve(scores, Formula(formula), fractions=(0.03, 0.05, 1))
    assert by_size.faithfulness.tolist() == [3, 1, 1]


def test_scores_are_not_changed_and_ties_keep_the_order_of_the_graph():
    scores = scored(GRAPH, BEST)
    before = scores.values.clone()
    asked = []
    formula = Formula(either)
    original = formula.scores
    formula.scores = lambda kept: (asked.extend(kept), original(kept))[1]
    curve(scores, formula, fractions=(0.2, 1), n_random=0)
    assert scores.values.equal(before) or scores.values.isnan().equal(before.isnan())
    rest = [edge for edge in GRAPH.edges if edge not in BEST]
    assert set(GRAPH.names(asked[0])) == {*BEST, *rest[:6]}


@pytest.mark.parametrize("name", CASES)
def test_mibs_curve_of_exact_scores(name):
    case = load_case(name)
    golden = case.truth["mib_curve_on_exact_scores"]
    setting = Setting.of(case.model(), case.prompts(), metric=case.as_metric("linear"))
    matrix = case.golden["edge_resample_linear"]
    found = curve(scored(setting.graph, matrix, metric="linear"), setting, n_random=1)
    assert list(FRACTIONS) == golden["percentages"]
    assert found.faithfulness.tolist() == pytest.approx(golden["faithfulness"], abs=1e-9)
    assert (found.cpr, found.cmd) == pytest.approx((golden["CPR"], golden["CMD"]), abs=1e-9)
    assert float(found.empty.mean()) == pytest.approx(golden["metric_empty"], abs=1e-9)


def test_an_empty_circuit_up_to_half_scores_a_quarter_by_itself():
    found = curve(scored(GRAPH, {}), Formula(lambda has: has(*GRAPH.edges)), n_random=3)
    assert (found.cpr, found.cmd) == pytest.approx((0.25, 0.749))
    assert found.random_cpr.tolist() == pytest.approx([0.25] * 3)
    assert found.random_cmd.tolist() == pytest.approx([0.749] * 3)


def test_a_selection_may_be_handed_over_and_the_random_ranking_goes_through_it():
    sizes = []

    def half(scores, n):
        """Pruned: half of what was asked for."""
        sizes.append(n)
        return scores.ranked()[: n // 2]

    found = curve(scored(GRAPH, BEST), Formula(either), fractions=(0.2, 1), select=half, n_random=2)
    assert found.counts == (4, 23)
    assert found.selection == "half"
    assert sizes == [9, 46] * 3
    masks = curve(scored(GRAPH, BEST), Formula(either), fractions=(0.2, 1), n_random=0,
                  select=lambda scores, n: GRAPH.mask(scores.ranked()[:n]))  # fmt: skip
    assert masks.faithfulness.tolist() == [1, 1]
    with pytest.raises(CircuitError, match="took 46 edges where 9 were asked for"):
        curve(scored(GRAPH, BEST), Formula(either), select=lambda scores, n: GRAPH.edges,
              fractions=(0.2, 1))  # fmt: skip


def test_pruning_is_neutral_under_resample_and_not_under_zero_ablation():
    """An MLP that nothing feeds writes what is ablated anyway, or what its biases make."""
    model = interp.load("demo", check=False)
    pairs = interp.prompts.capitals(model, n=4, seed=0)
    for ablation in ("resample", "zero"):
        setting = Setting.of(model, pairs, ablation=ablation)
        unfed = setting.graph.mask(["m3->logits"])
        alone, nothing = setting.scores(torch.stack([unfed, unfed & False])).mean(-1)
        assert torch.isclose(alone, nothing, atol=1e-4) == (ablation == "resample")


def test_what_it_refuses():
    scores = scored(GRAPH, BEST)
    with pytest.raises(GapError, match="too small to divide by"):
        curve(scores, Formula(lambda has: 1.0))
    for bad in ((0.5,), (0.5, 0.1), (0.1, 1.5), (-0.1, 1)):
        with pytest.raises(CircuitError, match="ascending, from 0 to 1"):
            curve(scores, Formula(either), fractions=bad)
    other = Graph(3, 2, pos_embed=False)
    with pytest.raises(CircuitError, match="on a graph of"):
        curve(scored(other, {}), Formula(either))


def test_intervals_hold_the_value_and_it_is_saved_whole(tmp_path):
    def formula(has):
        return has(*LEFT) + 2 * has(LAST)

    class Uneven(Formula):
        """Prompts that differ in what each edge is worth."""

        def scores(self, kept):
            values = super().scores(kept)
            return values + torch.tensor([0.5, 0.0, -0.2]) * (values > 2)

    found = curve(scored(GRAPH, BEST), Uneven(formula, weights=(1.0, 2.0, 0.5)))
    interval, cpr, cmd = found.interval(), found.cpr_interval(), found.cmd_interval()
    assert bool((interval.low <= interval.mean + 1e-9).all())
    assert bool((interval.high >= interval.mean - 1e-9).all())
    assert cpr.low <= found.cpr <= cpr.high
    assert cmd.low <= found.cmd <= cmd.high
    again = FaithfulnessCurve.load(found.save(tmp_path / "curve.safetensors"))
    assert again.to_frame().equals(found.to_frame())
    assert repr(again) == repr(found)
    assert len(found.plot().axes) == 1
