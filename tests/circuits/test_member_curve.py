"""How much of a circuit is needed: its own first edges, on a page too."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch

from interp.circuits import Circuit, FaithfulnessCurve, evaluate, member_curve
from interp.circuits.drawing import page
from interp.errors import CircuitError
from interp.graph.setting import Setting
from tests.cases import load_case
from tests.circuits.drawn import circuit, heavy
from tests.circuits.test_drawing_page import CURVE, GRAPH, SCORES, data_of, folder, play
from tests.views.browser import needs_browser

__all__ = ["folder"]
OWN = {"n_edges": [0, 7, 21], "faithfulness": [0.0, 0.4, 0.8], "selection": "members by |score|"}


@pytest.fixture(scope="module")
def found():
    """A compiled model's true circuit, with exact scores of all edges."""
    from interp.attribution.edges.verb import attribute_edges

    case = load_case("xproportion")
    model, metric = case.model(), case.as_metric("linear")
    scores = attribute_edges(model, case.prompts(), method="exact", metric=metric)
    setting = Setting.of(model, case.prompts(), metric=metric)
    own = Circuit("true", case.edges("resample"), setting.graph.shape, metric="linear",
                  ablation="resample", scores=scores)  # fmt: skip
    return own, setting


def test_it_ends_at_the_circuit_and_ranks_its_members_alone(found, tmp_path):
    own, setting = found
    curve = member_curve(own, setting)
    assert curve.counts == tuple(range(own.size + 1))
    assert curve.fractions[-1] == own.density
    assert float(curve.faithfulness[0]) == 0
    bare = evaluate(own, setting, n_random=0, completeness_sets=0, greedy_sets=0, members=False)
    assert float(curve.faithfulness[-1]) == pytest.approx(bare.faithfulness, abs=1e-12)
    first = sorted(own.ordered, key=lambda edge: -abs(own.scores.of(edge)))[:2]
    two = setting.scores(setting.graph.mask(first)[None])[0]
    assert torch.allclose(curve.per_prompt[2], two)
    assert member_curve(own, setting, points=3).counts == (0, 1, own.size)
    again = FaithfulnessCurve.load(curve.save(tmp_path / "curve.safetensors"))
    assert again.to_frame().equals(curve.to_frame())
    figure = curve.plot()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[-1] == f"{own.density:.2g}\n{own.size}"
    assert "CPR" not in figure.legends[0].get_texts()[-1].get_text()


def test_what_it_refuses(found):
    own, setting = found
    for wrong in (
        Circuit("bare", own.edges, own.shape, metric="linear"),
        Circuit("none", (), own.shape, scores=own.scores),
    ):
        with pytest.raises(CircuitError, match="cannot be added one after another"):
            member_curve(wrong, setting)


def test_a_page_takes_a_curve_of_the_graph_and_one_of_the_circuit():
    data = data_of(page(circuit(), scores=SCORES, curve=[CURVE, OWN]))
    assert data["curve"]["n"] == CURVE["n_edges"]
    assert data["own"]["n"] == OWN["n_edges"]
    assert data_of(page(circuit(), scores=SCORES, curve=OWN))["curve"] is None
    for curves in ([OWN, OWN], [CURVE, CURVE], [{**CURVE, "selection": "top signed"}, OWN]):
        with pytest.raises(CircuitError, match="2 curves for one page"):
            page(circuit(), scores=SCORES, curve=curves)


@needs_browser
def test_the_slider_says_the_faithfulness_of_the_circuits_own_first_edges(folder):
    made = page(circuit(), scores=heavy(GRAPH.edges), curve=[CURVE, OWN])
    script = """
        const faithfulness = () => document.body.dataset.faithfulness;
        slide(7); seen.own = [faithfulness(), text("#faith"), document.querySelectorAll("#curve .dot").length];
        slide(8); seen.between = text("#faith");
        document.querySelectorAll("#which button")[1].click(); slide(9);
        seen.graph = [faithfulness(), document.querySelectorAll("#curve .dot").length];
        document.querySelectorAll("#which button")[0].click(); slide(21); seen.whole = faithfulness();
        """
    seen = play(made, script, folder, "own")
    assert seen["own"] == ["0.4", "faithfulness 0.400 at 7 edges", 3]
    assert seen["between"] == "between measured points: 0.400 at 7, 0.800 at 21"
    assert seen["graph"] == ["0.31", 5]
    assert seen["whole"] == "0.8"
    alone = play(page(circuit(), scores=heavy(GRAPH.edges), curve=OWN), """
        document.querySelectorAll("#which button")[1].click(); seen.words = text("#faith");
        """, folder, "alone")  # fmt: skip
    assert alone["words"] == (
        "The curve is of the circuit’s own first edges, and these are others."
    )


def test_reading_and_drawing_a_circuit_imports_no_model_library():
    code = (
        "import json, sys\nfrom interp.circuits import Circuit\n"
        "own = Circuit.load('induction-redwood_attn_2l'); own.show(); own.draw().svg; own.view()\n"
        "print(json.dumps([m for m in ('transformers', 'pandas', 'matplotlib') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(re.findall(r"\[.*\]", out.stdout)[-1]) == []
