"""The residual stream is the sum of its parts, at any point, in every family; or it is refused."""

import pytest
import torch

import interp
from interp.direct.decompose import decompose
from interp.direct.proof import check
from interp.direct.verb import logit_attribution
from interp.errors import BudgetError, ModelError, RunError, SiteError
from interp.token_batch import TokenBatch
from tests import tiny
from tests.engine.cases import pairs

FAMILIES = [*tiny.REGISTRY, *tiny.OWN_ATTENTION, *tiny.FALCONS]


def model_of(family):
    return interp.load(tiny.shared(family), check=False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("by", ["component", "head", "neuron"])
def test_parts_sum_to_the_stream(family, by):
    model, ids = model_of(family), tiny.tokens()
    if family == "mixtral" and by == "neuron":
        with pytest.raises(SiteError, match="mixture of experts"):
            decompose(model, ids, by=by)
        return
    parts = decompose(model, ids, by=by)
    stream = model.run(ids, save="L-1.resid_post").cache["L-1.resid_post"]
    assert float((parts.total() - stream).abs().max()) < 1e-5
    assert len(set(parts.names)) == len(parts.names) == len(parts.parts)
    outside = 1 + ("pos_embed" not in model.anatomy.refused)
    if by == "component":
        assert len(parts.names) == outside + 2 * model.n_layers
    if by == "head":
        assert sum(name.endswith(".result") for name in parts.names) == 4 * model.n_layers


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gpt_neox", "granite"])
@pytest.mark.parametrize("at", ["L0.resid_pre", "L1.resid_pre", "L1.resid_mid", "L-2.resid_post"])
def test_parts_sum_to_the_stream_anywhere(family, at):
    model, ids = model_of(family), tiny.tokens()
    if family == "gpt_neox" and "mid" in at:
        with pytest.raises(SiteError, match="run in parallel"):
            decompose(model, ids, at=at)
        return
    stream = model.run(ids, save=at).cache[at]
    for by in ("component", "head", "neuron"):
        assert torch.allclose(decompose(model, ids, at=at, by=by).total(), stream, atol=1e-5)


def test_components_are_what_the_taps_show_and_heads_agree_with_the_cache():
    model, ids = model_of("gpt2"), tiny.tokens()
    run = model.run(ids, save=["embed", "pos_embed", "L*.attn_out", "L*.mlp_out", "L*.result"])
    ours, theirs = decompose(model, ids), run.cache.decompose()
    assert ours.names == theirs.names
    assert torch.equal(ours.parts, theirs.parts)
    ours, theirs = decompose(model, ids, by="head"), run.cache.decompose(heads=True)
    assert ours.names == tuple(n for n in theirs.names)
    assert torch.allclose(ours.parts, theirs.parts, atol=1e-6)


def test_a_post_norm_heads_part_is_the_norm_with_its_scale_frozen():
    model, ids = model_of("gemma2"), tiny.tokens()
    block = model.hf.model.layers[1]
    run = model.run(ids, save=["L1.result"])
    result = run.cache["L1.result"]
    scale = (
        result.sum(2).pow(2).mean(-1, keepdim=True) + block.post_attention_layernorm.eps
    ).sqrt()
    want = result[:, :, 2] / scale * (1 + block.post_attention_layernorm.weight.detach())
    got = decompose(model, ids, by="head")["L1.H2.result"]
    assert torch.allclose(got, want, atol=1e-6)


def test_a_position_by_name_under_padding():
    model = model_of("llama")
    for padding in ("right", "left"):
        prompts = pairs(model, padding)
        whole = decompose(model, prompts, by="head")
        one = decompose(model, prompts, by="head", position="here")
        rows = torch.arange(len(prompts))
        assert one.parts.shape[2] == 1
        assert torch.allclose(
            one.parts[:, :, 0], whole.parts[:, rows, prompts.positions["here"]], atol=1e-6
        )


def test_a_stream_that_is_no_sum_is_refused_by_name():
    post = interp.load(
        tiny.build("opt", word_embed_proj_dim=20, do_layer_norm_before=False), check=False
    )
    with pytest.raises(ModelError, match=r"this opt model is not the sum.*L1\.resid_pre.*OPT-350m"):
        decompose(post, tiny.tokens())
    bloom = tiny.build("bloom", apply_residual_connection_post_layernorm=True)
    with pytest.raises(SiteError, match="refused for bloom.*what the norms write"):
        decompose(interp.load(bloom, check=False), tiny.tokens())
    projected = interp.load(tiny.build("opt", word_embed_proj_dim=20), check=False)
    assert decompose(projected, tiny.tokens()).names[:2] == ("embed", "pos_embed")


def test_half_precision_warns_where_full_precision_refuses():
    model = interp.load(tiny.build("gpt2").to(torch.bfloat16), check=False)
    ids = tiny.tokens()
    decompose(model, ids, by="head")  # rounding alone is no reason to warn
    with pytest.warns(UserWarning, match="sum to something else.*float32 to be sure"):
        check(model.anatomy, TokenBatch.of(ids), torch.ones(1), 1.0, "a test")


def test_errors(monkeypatch):
    model, ids = model_of("gpt2"), tiny.tokens()
    with pytest.raises(SiteError, match=r"not one place.*'L3\.resid_pre'"):
        decompose(model, ids, at="L*.resid_pre")
    with pytest.raises(SiteError, match="not one place"):
        decompose(model, ids, at="L1.mlp_out")
    monkeypatch.setattr("interp.direct.decompose.available", lambda device: 1000)
    with pytest.raises(BudgetError, match="392 parts at 20 places"):
        decompose(model, ids, by="neuron")


@pytest.mark.bad_input
def test_unknown_ways_to_take_a_branch_apart():
    for verb in (decompose, logit_attribution):
        with pytest.raises(RunError, match="by='heads'; expected one of component, head, neuron"):
            verb(model_of("gpt2"), tiny.tokens(), by="heads")
