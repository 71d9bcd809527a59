"""The compiled models are what their files say, however they are built."""

from __future__ import annotations

import pytest
import torch

import interp
from tests.cases import CASES, load_case


@pytest.mark.parametrize("name", CASES)
def test_logits_and_answers_are_the_programs_own(name):
    case = load_case(name)
    model = case.model()
    logits = model.run(case.clean).logits
    mask, answer = case.data["mask"], case.data["answer"]
    assert float((logits - case.data["clean_logits"]).abs().max()) < 1e-5  # stored in float32
    if case.cfg["output"] == "categorical":
        assert bool((logits.argmax(-1) == answer)[mask].all())
    else:
        assert float((logits[..., 0] - answer).abs()[mask].max()) < 1e-3
    assert model.dtype is torch.float64
    assert (model.d_vocab, model.d_vocab_out) == (case.cfg["d_vocab"], case.cfg["d_vocab_out"])
    assert model.anatomy.causal == (case.cfg["attention_dir"] == "causal")


@pytest.mark.parametrize("name", CASES)
def test_built_from_weights_or_taken_from_a_hooked_transformer_they_are_one(name):
    case = load_case(name)
    direct, loaded = case.model(), case.model(through_hooked=True)
    assert direct.weights_hash == loaded.weights_hash
    assert direct.name == loaded.name == name
    assert direct.sites() == loaded.sites()
    one, other = (model.run(case.clean, save="all") for model in (direct, loaded))
    assert torch.equal(one.logits, other.logits)
    kept = [site for site in direct.sites() if not site.endswith("result")]
    assert all(torch.equal(one.cache[site], other.cache[site]) for site in kept)
    theirs = case.hooked_transformer()(case.clean).detach()
    assert float((one.logits - theirs).abs().max()) < 1e-12 * float(theirs.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_every_site_is_proven_though_whole_heads_and_mlps_are_empty(name):
    report = load_case(name).model(check="full").report()
    assert not [why for why in report.refused.values() if "self-check failed" in why]
    assert {"z", "result", "pattern", "mlp_post", "resid_mid"} <= set(report.proven)


def site_of(node):
    """The site that a node of the truth writes."""
    if node in ("embed", "pos_embed"):
        return node
    kind, _, head = node.partition(".h")
    return f"L{kind[1:]}.H{head}.z" if head else f"L{kind[1:]}.mlp_out"


@pytest.mark.parametrize(
    ("engine", "name"),
    [*(("replay", name) for name in CASES), ("plain", "hist"), ("plain", "induction")],
)
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_patching_each_node_at_each_position_gives_the_golden_numbers(name, direction, engine):
    """Measured by other software: mean(metric of the patched run) - mean(metric of the run)."""
    case = load_case(name)
    model, prompts = case.model(check=False), case.prompts()
    golden = case.golden[f"node_pos_{direction}_linear"]
    for row, node in enumerate(case.nodes):
        found = interp.patch(
            model, prompts, site_of(node), metric=case.as_metric(), positions="each",
            direction=direction, engine=engine,
        )  # fmt: skip
        base = found.clean if direction == "noise" else found.corrupted
        effect = found.per_prompt.mean(-1) - base.mean()
        assert found.engine == engine
        assert torch.allclose(effect, golden[row], atol=1e-6), node


@pytest.mark.parametrize("name", CASES)
def test_the_metrics_are_the_golden_ones(name):
    case = load_case(name)
    model = case.model(check=False)
    for side in ("clean", "corrupted"):
        logits = model.run(getattr(case, side)).logits
        got = case.metric(logits).mean()
        assert got.item() == pytest.approx(case.golden[f"metric_{side}"].item(), abs=1e-6)
    stacked = logits.expand(2, 3, *logits.shape)
    assert torch.equal(case.metric(stacked, "l2")[1, 2], case.metric(logits, "l2"))
    assert case.edges("resample") <= case.edges("structural") <= case.edges("all")
