"""The terms of a feature's pre-activation sum to it, in every family and behind every node."""

import pytest
import torch

import interp
from interp.errors import DictionaryError, PromptError
from interp.inspection.feature_circuits import Contributions, Node, contributions
from interp.inspection.feature_circuits.contributions import begin
from tests import tiny
from tests.engine.cases import pairs
from tests.inspection.feature_circuits.made import (
    D_SAE,
    double,
    neurons_as_features,
    strongest,
    transcoder,
)

REFUSED = "falcon-grouped"  # its two norms have names of their own: no weights of it are folded
FAMILIES = [f for f in (*tiny.REGISTRY, *tiny.OWN_ATTENTION, *tiny.FALCONS) if f != REFUSED]
LAST = tiny.N_LAYERS - 1


def made(family, **options):
    model = double(family)
    return model, [transcoder(model, layer, **options) for layer in range(model.n_layers)]


@pytest.mark.parametrize("family", FAMILIES)
def test_terms_sum_to_the_pre_activation_at_every_step(family):
    """At the root, and behind each feature and head that leads to it, to 1e-10 in float64; to float32's
    rounding where Hugging Face's RMSNorm computes in float32 whatever the model's dtype."""
    model, tcs = made(family)
    ids = tiny.tokens(1, 7)
    unit = strongest(model, ids, tcs[-1], LAST)
    run, root = begin(tcs, model, ids, f"L{model.n_layers - 1}.mlp.F{unit}")
    plain = all(isinstance(n, torch.nn.LayerNorm) for n in model.hf.modules() if "Norm" in type(n).__name__)  # fmt: skip
    close = {"rel": 1e-9, "abs": 1e-10} if plain else {"rel": 1e-5, "abs": 1e-5}
    direction = run.root(root)
    total = sum(value for _, value in run.terms(direction))
    assert total == pytest.approx(run.pre(root), **close)
    strong = sorted(run.terms(direction), key=lambda term: -abs(term[1]))
    nodes = [node for node, _ in strong if node.passable]
    for kind in ("feature", "head"):
        node = next(node for node in nodes if node.kind == kind)
        value = dict(run.terms(direction))[node]
        inside = run.behind(node, direction)
        assert sum(v for _, v in run.terms(inside)) == pytest.approx(value, **close)
        deeper = [(n, v) for n, v in run.terms(inside) if n.passable]
        if deeper:  # one more step back
            node, value = max(deeper, key=lambda term: abs(term[1]))
            further = run.behind(node, inside)
            total = sum(v for _, v in run.terms(further))
            assert total == pytest.approx(value, **close)


@pytest.mark.parametrize("activation", ["relu", "gated", "jumprelu", "topk", "batchtopk"])
def test_any_activation_and_its_gate(activation):
    model, tcs = made("gpt2", activation=activation)
    ids = tiny.tokens(1, 6)
    unit = strongest(model, ids, tcs[2], 2)
    found = contributions(tcs, model, ids, f"L2.mlp.F{unit}")
    assert float(found.values.sum()) == pytest.approx(found.pre_activation, rel=1e-10)
    run, root = begin(tcs, model, ids, f"L2.mlp.F{unit}")
    direction = run.root(root)
    node, value = next((n, v) for n, v in run.terms(direction) if n.kind == "feature")
    inside = run.terms(run.behind(node, direction))
    assert sum(v for _, v in inside) == pytest.approx(value, rel=1e-9)


def test_float32_and_the_norm_before_gamma():
    model = interp.load(tiny.shared("gpt2"), check=False)
    tcs = [transcoder(model, layer, reads="ln2.normalized") for layer in range(3)]
    found = contributions(tcs, model, tiny.tokens(1, 6), "L2.mlp.F3@4")
    assert abs(found.deviation) < 1e-4 * float(found.values.abs().max())


def test_a_skip_transcoder_and_an_mlp_without_one():
    model = double("gpt_neox")
    tcs = [transcoder(model, 0, kind="skip_transcoder"), transcoder(model, 2)]
    found = contributions(tcs, model, tiny.tokens(1, 6), "L2.mlp.F3@4")
    kinds = {node.kind for node in found.nodes}
    assert {"skip", "mlp", "error", "head", "embed", "bias"} <= kinds
    assert float(found.values.sum()) == pytest.approx(found.pre_activation, rel=1e-10)
    assert "pos_embed" not in kinds


def test_a_feature_s_term_is_what_ablating_it_takes_away():
    """In a run where the norm's scale is the same: the difference of two streams, read by hand."""
    model, tcs = made("llama")
    ids = tiny.tokens(1, 6)
    unit = strongest(model, ids, tcs[2], 2, 4)
    found = contributions(tcs, model, ids, f"L2.mlp.F{unit}@4")
    node = next(n for n in found.nodes if n.kind == "feature" and n.layer == 1)
    cache = model.run(ids, save=["L2.resid_mid", "L1.mlp.input"]).cache
    x, norm = cache["L2.resid_mid"][0, 4], model.hf.model.layers[2].post_attention_layernorm
    acts = tcs[1].encode(cache["L1.mlp.input"][0, 4])
    written = acts[node.index] * tcs[1].W_dec[node.index]
    scale = (x.pow(2).mean() + norm.variance_epsilon).sqrt()
    want = float((written * norm.weight.detach() / scale) @ tcs[2].W_enc[:, unit])
    assert found[node.name] == pytest.approx(want, rel=1e-6)  # RMSNorm computes in float32


def test_error_nodes():
    """A transcoder that is its MLP has none; one that writes nothing leaves out all."""
    model = interp.load(tiny.build("gpt2", activation_function="relu").double(), check=False)
    ids = tiny.tokens(1, 6)
    nothing = transcoder(model, 1)
    with torch.no_grad():
        nothing.parts[0].dec.zero_()
        nothing.b_dec.zero_()
    found = contributions([nothing, transcoder(model, 2)], model, ids, "L2.mlp.F1@3")
    assert found.errors().query("layer == 1").share.item() == pytest.approx(1.0)
    frame = found.errors().query("layer == 1")
    assert frame.error.item() == pytest.approx(found["L1.mlp.error@3"])

    exact = neurons_as_features(model, 0)
    cache = model.run(ids, save=["L0.mlp.input", "L0.mlp_out"]).cache
    assert torch.allclose(exact(cache["L0.mlp.input"]), cache["L0.mlp_out"], atol=1e-12)
    shares = contributions([exact, transcoder(model, 2)], model, ids, "L2.mlp.F1@3").errors()
    assert abs(shares.query("layer == 0").share.item()) < 1e-10


def test_tables_and_files(tmp_path):
    model, tcs = made("gpt2")
    found = contributions(tcs, model, tiny.tokens(1, 6), "L2.mlp.F3@4")
    frame = found.to_frame()
    assert list(frame.columns) == ["name", "kind", "layer", "position", "token", "contribution", "share"]  # fmt: skip
    assert frame.contribution.sum() == pytest.approx(found.pre_activation)
    assert found.by_kind().contribution.sum() == pytest.approx(found.pre_activation)
    assert frame.contribution.abs().is_monotonic_decreasing
    again = Contributions.load(found.save(tmp_path / "c.safetensors"))
    assert again.names == found.names
    assert torch.equal(again.values, found.values)
    assert "terms" in repr(found)
    assert found["L0.mlp.F99@4"] == 0.0
    assert all(Node.parse(name).name == name for name in found.names)
    assert found.plot().axes[0].get_xlabel() == "contribution to the pre-activation"


@pytest.mark.bad_input
def test_errors():
    model, tcs = made("gpt2")
    ids = tiny.tokens(1, 6)
    with pytest.raises(DictionaryError, match=r"'L2.mlp' is not one feature; expected.*L2.mlp.F12"):
        contributions(tcs, model, ids, "L2.mlp")
    with pytest.raises(DictionaryError, match=r"no transcoder of layer 1 was given. There are L2.mlp"):  # fmt: skip
        contributions(tcs[2], model, ids, "L1.mlp.F3")
    with pytest.raises(interp.errors.SiteError, match=f"this dictionary has {D_SAE}"):
        contributions(tcs, model, ids, "L2.mlp.F99")
    with pytest.raises(PromptError, match=r"2 prompts: what is frozen belongs to one run"):
        contributions(tcs, model, tiny.tokens(2, 6), "L2.mlp.F3")
    with pytest.raises(DictionaryError, match=r"two transcoders of layer 0"):
        contributions([tcs[0], tcs[0]], model, ids, "L0.mlp.F3")
    with pytest.raises(DictionaryError, match=r"no transcoder was given"):
        contributions([], model, ids, "L0.mlp.F3")
    with pytest.raises(DictionaryError, match=r"a str is no dictionary"):
        contributions(["L0"], model, ids, "L0.mlp.F3")
    inside = pytest.raises(
        DictionaryError, match=r"dictionaries in place.*outside of model.replaced"
    )
    with model.replaced(tcs[0]), inside:
        contributions(tcs, model, ids, "L2.mlp.F3")
    with pytest.raises(DictionaryError, match=r"'L1.F3' names no part.*'?L1.mlp.F3@9"):
        Node.parse("L1.F3")
    model, tcs = made(REFUSED)
    with pytest.raises(interp.errors.ModelError, match=r"cannot fold the norm before"):
        contributions(tcs, model, ids, "L2.mlp.F3")
    small = transcoder(double("gpt2"), 1)
    other = interp.load(tiny.build("gpt2", n_embd=16), check=False)
    with pytest.raises(DictionaryError, match=r"it is a dictionary of another model"):
        contributions(small, other, ids, "L1.mlp.F3")


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_is_cut_off_and_positions_mean_the_same(padding):
    model, tcs = made("llama")
    prompts = pairs(model, padding)
    for row in range(len(prompts)):
        one, ids = prompts.subset([row]), prompts.clean.ids[row][prompts.clean.mask[row]][None]
        place = int(prompts.positions["here"][row] - prompts.clean.first[row])
        named = contributions(tcs, model, one, "L2.mlp.F3@here")
        plain = contributions(tcs, model, ids, f"L2.mlp.F3@{place}")
        assert named.names == plain.names
        assert torch.equal(named.values, plain.values)
