"""Connections: two factors, whose product is the term of the sum; through heads; beside a corpus."""

import pytest
import torch

from interp.errors import DictionaryError, ResultError
from interp.inspection.feature_circuits import Connections, connections, contributions
from interp.inspection.feature_circuits.contributions import begin
from interp.results import Provenance
from interp.taps.norms import normalise
from tests import tiny
from tests.inspection.feature_circuits.made import double, transcoder


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
@pytest.mark.parametrize("reads", ["mlp.input", "ln2.normalized"])
def test_invariant_times_activation_over_scale_is_the_term(family, reads):
    model = double(family)
    if family == "gemma2" and reads != "mlp.input":
        return
    early, late = transcoder(model, 0), transcoder(model, 2, reads=reads)
    ids = tiny.tokens(1, 6)
    found = connections(early, late, model)
    resid = "L2.resid_pre" if model.anatomy.parallel else "L2.resid_mid"
    cache = model.run(ids, save=["L0.mlp.input", resid]).cache
    scale = normalise(model.anatomy.blocks[2].ln2, cache[resid][0, 4])[1]
    acts = early.encode(cache["L0.mlp.input"][0, 4])
    terms = contributions([early, late], model, ids, "L2.mlp.F3@4")
    for j in acts.nonzero()[:, 0].tolist():
        want = float(acts[j] * found.invariant[j, 3] / scale)
        assert terms[f"L0.mlp.F{j}@4"] == pytest.approx(want, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_through_a_head(family):
    """Times attention and over both scales it is the term of the path feature ← head ← feature."""
    model = double(family)
    early, late = transcoder(model, 0), transcoder(model, 2)
    ids = tiny.tokens(1, 6)
    found = connections(early, late, model, head=(1, 3))
    run, root = begin([early, late], model, ids, "L2.mlp.F3@5")
    direction = run.root(root)
    node = next(n for n, _ in run.terms(direction) if (n.layer, n.index, n.source) == (1, 3, 2))
    terms = run.terms(run.behind(node, direction))
    cache = model.run(ids, save=["L1.pattern", "L1.resid_pre", "L2.resid_mid"]).cache
    scales = [normalise(norm, cache[site][0, pos])[1] for norm, site, pos in (
        (model.anatomy.blocks[1].ln1, "L1.resid_pre", 2), (model.anatomy.blocks[2].ln2, "L2.resid_mid", 5))]  # fmt: skip
    factor = float(cache["L1.pattern"][0, 3, 5, 2] / scales[0] / scales[1])
    features = [(n, v) for n, v in terms if n.kind == "feature"]
    assert features
    for term, value in features:
        act = float(run.activations(0, 2)[term.index])
        want = act * factor * float(found.invariant[term.index, 3])
        assert value == pytest.approx(want, rel=1e-6, abs=1e-9)


def test_the_mean_over_a_corpus_is_that_of_the_terms(model, tmp_path):
    early, late = transcoder(model, 0, d_sae=16), transcoder(model, 2, d_sae=12)
    texts = [
        "The capital of France is Paris",
        "The capital of Japan is Tokyo",
        "When Mary and John",
    ]
    found = connections(early, late, model, corpus=texts, progress=False)
    total, count = torch.zeros(16), 0
    for text in texts:
        site = late.spec.reads[0]
        active = late.encode(model.run(text, save=site).cache[site])[0, 1:, 5] > 0
        for column in (active.nonzero()[:, 0] + 1).tolist():
            terms = contributions([early, late], model, text, f"L2.mlp.F5@{column}")
            if terms.activation > 0:
                count += 1
                total += torch.tensor([terms[f"L0.mlp.F{j}@{column}"] for j in range(16)])
    assert count == int(found.fired[5]) > 0
    assert torch.allclose(found.dependent[:, 5], total / count, atol=1e-4)
    frame = found.into(5, top=3)
    best = int(found.dependent[:, 5].abs().argmax())
    assert frame.source[0] == f"L0.mlp.F{best}"
    assert list(frame.columns)[-1] == "dependent"
    assert found.out_of(best).target.str.startswith("L2.mlp.F").all()
    again = Connections.load(found.save(tmp_path / "c.safetensors"))
    assert torch.equal(again.dependent, found.dependent)
    assert "targets seen active" in repr(found)
    axes = found.plot(5).axes[0]
    assert axes.get_xlabel().startswith("input-invariant")
    assert len(axes.collections[0].get_offsets()) == int((found.together[:, 5] > 0).sum())


@pytest.mark.bad_input
def test_errors():
    model = double("gpt2")
    early, late = transcoder(model, 0), transcoder(model, 2)
    with pytest.raises(DictionaryError, match="from layer 2 to layer 0: expected the earlier"):
        connections(late, early, model)
    with pytest.raises(DictionaryError, match="does not lie between.*layers 1 to 2"):
        connections(early, late, model, head=(0, 1))
    with pytest.raises(DictionaryError, match="corpus= beside head="):
        connections(early, late, model, head=(1, 1), corpus=["a"])
    found = connections(early, late, model)
    with pytest.raises(ResultError, match="weights alone: give"):
        _ = found.dependent
    with pytest.raises(DictionaryError, match="no feature 99 in L2.mlp; expected 0 to 23"):
        found.into(99)
    with pytest.raises(DictionaryError, match="no feature -1 in L0.mlp"):
        found.out_of(-1)


def test_agreement_of_weights_with_what_happens():
    """By hand for one target; where sources are active alike, weights say all."""
    source, target = torch.eye(4), torch.tensor([[3.0, -1.0], [1.0, 2.0], [-2.0, 5.0], [0.5, 0.1]])
    together = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, 0.3], [1.0, 99.0]])
    found = Connections("L0.mlp", "L2.mlp", None, source, target, together,
                        torch.tensor([40, 40]), Provenance({}, "m", "", None, None, {}))  # fmt: skip
    frame = found.agreement()
    assert frame.spearman.tolist() == pytest.approx(
        [1.0, 0.5]
    )  # ranks 1 3 2 of -1 5 .1, of -.1 1.5 .9
    assert frame.sources.tolist() == [4, 3]
    assert frame.shuffled[0] == pytest.approx(-0.8)
    assert len(found.agreement(least=41)) == 0
