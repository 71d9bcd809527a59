"""Attention, effects and composition on random models: against the definitions, by other means."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import PromptError, RunError
from interp.pipelines.attending import attention
from interp.pipelines.behaviour import Behaviour, columns, mlp_names
from interp.pipelines.composition import composition, site_of
from interp.pipelines.effects import direct, effect, mlps_at, through
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.shared("llama"))


@pytest.fixture(scope="module")
def pairs(model):
    return interp.prompts.induction(model, n=6, period=5, corrupt="cue")


def test_attention_is_the_patterns_own(model, pairs):
    found = attention(model, pairs, "END", {"A1": "A1", "both": ("A1", "A1+1")})
    pattern = model.run(pairs, save="L1.pattern").cache["L1.pattern"]
    a1, end = int(pairs.columns("A1")[0]), int(pairs.columns("END")[0])
    expected = pattern[:, 2, end, a1]
    row = found["A1"].nodes.index("a1.h2")
    assert torch.allclose(found["A1"].per_prompt[row], expected, atol=1e-6)
    both = pattern[:, 2, end, a1 : a1 + 2].sum(-1)
    assert torch.allclose(found["both"].per_prompt[row], both, atol=1e-6)
    assert found["A1"].name == "attention END→A1"


def test_places(pairs):
    assert torch.equal(columns(pairs, "A1+1"), pairs.columns("B1"))
    with pytest.raises(PromptError, match="lies behind the last token"):
        columns(pairs, "END+1")
    with pytest.raises(PromptError, match=r"expected a position such as 'S1', or 'S1\+1'"):
        columns(pairs, "A1+x")


def test_effects_are_patches(model, pairs):
    heads, mlps = effect(model, pairs, "A1+1")
    one = interp.patch(model, pairs, "L1.H2.z@B1")
    assert heads.of("a1.h2") == pytest.approx(
        float((one.per_prompt - one.corrupted).mean()), abs=1e-5
    )
    assert mlps.nodes == mlp_names(model)
    paths = through(model, pairs, ["logits"], "logits alone")
    one = interp.patch(model, pairs, "L1.H2.z -> logits")
    assert paths.of("a1.h2") == pytest.approx(
        float((one.per_prompt - one.corrupted).mean()), abs=1e-5
    )
    by_mlps = through(model, pairs, mlps_at(model, "END"), "MLPs at END")
    assert by_mlps.of("a2.h1") != paths.of("a2.h1")
    assert float(through(model, pairs, [], "nothing").values.abs().max()) == 0.0


def test_direct_effects_are_logit_attributions(model, pairs):
    heads, mlps = direct(model, pairs)
    written = interp.logit_attribution(model, pairs, by="head", draws=0)
    labels = written.axes[0].labels
    assert heads.of("a2.h3") == pytest.approx(float(written.values[labels.index("L2.H3.result")]))
    assert mlps.of("m1") == pytest.approx(float(written.values[labels.index("L1.mlp_out")]))


@pytest.mark.parametrize("channel", ["q", "k"])
def test_frozen_composition_is_the_engines_direct_path(model, pairs, channel):
    """Its receivers hold what path patching of the engine puts there."""
    from interp.engine.work import Work
    from interp.patching.paths import lay_out_paths, values_at_receivers
    from interp.patching.run import choose_way
    from interp.patching.sources import values_of

    where = "END" if channel == "q" else "B1"
    cue = interp.prompts.induction(model, n=6, period=5, corrupt="cue")
    found = composition(model, cue, ["a0.h1"], channel, query="END", key="B1", mlps="frozen")
    grid = lay_out_paths(model.anatomy, f"L0.H1.z@{where} -> L2.{channel}@{where}", None, cue)
    way = choose_way(model, cue.clean, grid.cells, grid.senders, whole=False, engine="auto",
                     batch="auto")  # fmt: skip
    values = values_of(model, cue, grid.senders, direction="noise", source=None, reference=None,
                       seed=0, batch="auto")  # fmt: skip
    (spot,) = grid.paths[0].receivers
    put = {
        f"L2.{channel}@{where}": interp.Replace(
            values_at_receivers(way, grid.paths, values, Work(1))(spot)
        )
    }
    end, b1 = int(cue.columns("END")[0]), int(cue.columns("B1")[0])
    before, after = (
        model.run(cue, save="L2.pattern", edit=edit).cache["L2.pattern"][:, :, end, b1]
        for edit in (None, put)
    )
    assert torch.allclose(found.lost[0, 2], (before - after).mean(0), atol=1e-5)
    assert float(found.lost[0, 2].abs().max()) > 1e-5


def test_recomputed_mlps_carry_more_than_the_direct_path(model, pairs):
    both = [
        composition(model, pairs, ["a0.h1"], "k", query="END", key="B1", mlps=mlps).lost[0, 1:]
        for mlps in ("frozen", "recomputed")
    ]
    assert float((both[0] - both[1]).abs().max()) > 1e-5


def test_the_last_block_sends_to_nobody_and_no_senders_are_no_error(model, pairs):
    last = composition(model, pairs, ["a2.h0"], "k", query="END", key="B1")
    assert last.lost.isnan().all()
    assert last.top(3).empty
    none = composition(model, pairs, [], "q", query="END", key="B1")
    assert none.lost.shape[0] == 0


def test_streams_that_are_no_sums_are_refused():
    model = interp.load(tiny.build("opt", do_layer_norm_before=False))
    pairs = interp.prompts.induction(model, n=2, period=5)
    with pytest.raises(RunError, match="no composition to measure"):
        composition(model, pairs, ["a0.h0"], "k", query="END", key="B1")


def test_names_of_sites():
    assert site_of("a0.h4") == "L0.H4.z"
    assert site_of("m2") == "L2.mlp_out"
    nobody = Behaviour.of_nobody(
        "x", "share", Behaviour("x", "share", ("a0.h0",), torch.ones(1, 3))
    )
    assert [len(bound) for bound in nobody.bounds()] == [0, 0]
