"""Directions in words: of sites, of vectors, of every neuron, of singular vectors."""

import pytest
import torch

import interp
from interp.errors import MetricError, ModelError, ResultError, SiteError
from interp.geometry.spectrum import entropy_rank
from interp.weight_lenses import (
    DecodeResult,
    NeuronMap,
    Spectrum,
    decode,
    decode_neurons,
    reading,
    svd,
)
from interp.weight_lenses.heads import heads_of
from interp.weight_lenses.rotary import relative_rotation
from tests import tiny


def load(family, **changes):
    hf = tiny.build(family, **changes) if changes else tiny.shared(family)
    return interp.load(hf, check=False)


def test_bare_decoding_is_the_papers_product():
    model = load("llama")
    at, w_u = model.weights.layer(1), model.weights.W_U
    directions = {
        "L1.mlp_post.N7": at.W_out[7],
        "L1.mlp_pre.N7": at.W_gate[:, 7],
        "L1.H2.z": at.W_O[2],
        "L1.H3.q": at.W_Q[3].T,
        "L1.H1.k": at.W_K[1].T,
    }
    for site, rows in directions.items():
        found = decode(model, site, top=4, folded=False)
        probs = (rows.reshape(-1, tiny.D_MODEL) @ w_u).softmax(-1).topk(4)
        assert torch.equal(found.top_ids, probs.indices)
        assert torch.allclose(found.top_probs, probs.values, atol=1e-6)
        assert torch.allclose(found.norm, rows.reshape(-1, tiny.D_MODEL).norm(dim=-1))
    assert found.names[2] == "L1.H1.k[2]"
    column = decode_neurons(model, 1, side="in", folded=False)
    assert torch.equal(column.top_ids[0], (at.W_in.T @ w_u).argmax(-1))


@pytest.mark.parametrize("family", ["gpt2", "llama", "granite", "phi", "opt"])
def test_a_neuron_decodes_to_the_logits_that_it_adds(family):
    """In the last layer: what one more unit of the neuron adds, the final norm's scale frozen."""
    model, ids = load(family), tiny.tokens(1, 4)
    last = model.n_layers - 1
    edit = {f"L{last}.mlp_post.N5": lambda x: x + 1.0}
    point = f"L{last}.resid_post"
    moved = (
        model.run(ids, save=point, edit=edit).cache[point] - model.run(ids, save=point).cache[point]
    )
    found = decode(model, f"L{last}.mlp_post.N5", top=tiny.VOCAB)
    direct = decode(model, moved[0, :1], top=tiny.VOCAB)
    assert torch.equal(found.top_ids[0, :20], direct.top_ids[0, :20])
    assert torch.allclose(found.top_logits, direct.top_logits, atol=1e-4)
    assert found.top_logits.mean().abs() < 1e-6  # centred over the vocabulary
    assert torch.allclose(found.top_probs.sum(-1), torch.ones(1))
    assert torch.equal(found.bottom_ids[0], found.top_ids[0].flip(0))


def test_de_embedding_finds_a_tokens_own_embedding():
    model = load("gemma")
    table = model.weights.W_E
    found = decode(model, table[[5, 9]] * 3, through="embed", top=1, centre=False, names=["a", "b"])
    assert torch.allclose(found.top_logits[:, 0], (table[[5, 9]] @ table.T).amax(-1) * 3 * 32**0.5)
    assert found.names == ("a", "b")
    assert found.through == "embed"


def test_centring_changes_logits_and_no_probability():
    model = load("llama")
    plain, centred = (decode(model, "L0.mlp_post.N0-3", centre=c) for c in (False, True))
    assert torch.allclose(plain.top_probs, centred.top_probs, atol=1e-6)
    shift = plain.top_logits - centred.top_logits
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-5)
    assert torch.allclose(plain.kurtosis, centred.kurtosis, atol=1e-3)


def test_sites_of_several_layers_heads_and_neurons():
    model = load("qwen2")
    found = decode(model, ["L0-1.mlp_post.N3,5", "L2.H1.result"], top=2)
    assert found.names[:4] == (
        "L0.mlp_post.N3", "L0.mlp_post.N5", "L1.mlp_post.N3", "L1.mlp_post.N5",
    )  # fmt: skip
    assert len(found.names) == 4 + 8
    assert torch.allclose(found.norm[4:], torch.ones(8), atol=1e-5)
    assert len(decode(model, "L*.H*.v", top=1).names) == 3 * 2 * 8  # key-value heads


@pytest.mark.parametrize("side", ["in", "out", "gate"])
def test_blocks_of_neurons_change_nothing(side, monkeypatch):
    model = load("granite")
    whole = decode_neurons(model, side=side, controls=10)
    monkeypatch.setattr(reading, "BLOCK", 7 * tiny.VOCAB)
    parts = decode_neurons(model, side=side, controls=10)
    assert torch.equal(whole.top_ids, parts.top_ids)
    assert torch.allclose(whole.kurtosis, parts.kurtosis, atol=1e-5)
    assert torch.allclose(whole.null_probs, parts.null_probs, atol=1e-6)
    if side != "in":
        point = "mlp_post" if side == "out" else "mlp_pre"
        one = decode(model, f"L*.{point}.N*", top=1)
        assert torch.equal(whole.top_ids.flatten(), one.top_ids[:, 0])
        assert torch.allclose(whole.top_probs.flatten(), one.top_probs[:, 0], atol=1e-6)


def test_planted_neurons_are_found_and_random_ones_are_at_chance():
    hf = tiny.build("gpt2", n_embd=64, vocab_size=400)
    mlp = hf.transformer.h[1].mlp.c_proj
    with torch.no_grad():
        hf.transformer.ln_f.weight.fill_(1.0)
        for neuron, token in ((3, 17), (40, 301)):
            mlp.weight[neuron] = 1.5 * hf.lm_head.weight[token]
    model = interp.load(hf, check=False)
    found = decode_neurons(model)
    assert (found.words[1][3], found.words[1][40]) == ("17", "301")
    assert found.beyond_null(0.999)[1, [3, 40]].all()
    assert found.kurtosis[1, [3, 40]].min() > found.null_kurtosis.max()
    share = float(found.beyond_null(0.9)[[0, 2]].float().mean())
    assert share == pytest.approx(0.1, abs=0.05)
    assert set(found.top(2, by="kurtosis")["neuron"]) == {3, 40}


def test_agreement_of_two_models():
    model = load("llama")
    mine, twin = decode_neurons(model), decode_neurons(model.random_twin(check=False))
    assert torch.equal(mine.agreement(mine), torch.ones(3))
    assert mine.agreement(twin).max() < 0.1
    with pytest.raises(ResultError, match="maps of the same side and layers"):
        mine.agreement(decode_neurons(model, side="in"))


@pytest.mark.parametrize("which", ["ov", "qk"])
@pytest.mark.parametrize("family", ["gpt2", "gptj", "qwen3"])
def test_svd_of_a_product_equals_that_of_the_matrix(family, which):
    model = load(family)
    found = svd(model, 1, 2, which, offset=3 if family != "gpt2" else 0, n=8)
    maps = heads_of(model, 1)
    turn = relative_rotation(model.anatomy, 1, 3)
    matrix = maps.v[2] @ maps.o[2]
    if which == "qk":
        matrix = maps.q[2] @ turn @ maps.k[2].T / 8**0.5
    assert torch.allclose(found.values, torch.linalg.svdvals(matrix)[:8], atol=1e-5)
    assert torch.allclose(found.left @ found.values.diag() @ found.right.T, matrix, atol=1e-5)
    assert found.null.norm() == pytest.approx(float(found.values.norm()), rel=1e-4)


def test_spectra_of_mlps_and_what_they_say():
    model = load("llama")
    out, gate = svd(model, 0, which="mlp_out", n=5), svd(model, 0, which="mlp_gate", n=5)
    w_out = model.weights.layer(0).W_out
    assert torch.allclose(out.values, torch.linalg.svdvals(w_out), atol=1e-5)
    assert out.read is None
    assert gate.written is None
    assert torch.equal(out.written.top_ids, decode(model, out.right.T).top_ids)
    assert out.written.names[1] == "L0.mlp_out[1]"


def test_effective_rank_counts_directions():
    assert float(entropy_rank(torch.ones(6))) == pytest.approx(6.0)
    assert float(entropy_rank(torch.tensor([1.0, 0.0, 0.0]))) == pytest.approx(1.0)
    hf = tiny.build("gpt2")
    with torch.no_grad():
        hf.transformer.h[0].attn.c_proj.weight[1:8] = 0  # head 0 writes one direction
    found = svd(interp.load(hf, check=False), 0, 0)
    assert found.effective_rank == pytest.approx(1.0, abs=1e-3)
    assert found.null_effective_rank > 4


def test_frames_figures_and_files(tmp_path, bpe_tokenizer):
    hf = tiny.build("gpt2", vocab_size=len(bpe_tokenizer))
    model = interp.load(hf, tokenizer=bpe_tokenizer, check=False)
    found = decode(model, "L1.mlp_post.N0-4", top=3)
    texts = [word.get_text() for word in found.plot(end="top").axes[0].texts]
    assert len(texts) == 15
    again = DecodeResult.load(found.save(tmp_path / "decode.safetensors"))
    assert again.top_tokens == found.top_tokens
    assert len(found.to_frame()) == 15
    spectrum = svd(model, 1, 0, "qk", n=3)
    loaded = Spectrum.load(spectrum.save(tmp_path / "svd.safetensors"))
    assert torch.equal(loaded.values, spectrum.values)
    assert loaded.read.top_tokens == spectrum.read.top_tokens
    assert torch.equal(loaded.written.top_logits, spectrum.written.top_logits)
    assert len(spectrum.to_frame()) == 8
    assert len(spectrum.plot().axes[0].lines) == 2
    assert "key side" in spectrum.plot_tokens().axes[0].get_title().replace("\n", " ")
    out = svd(model, 1, which="mlp_out", n=3)
    assert Spectrum.load(out.save(tmp_path / "out.safetensors")).read is None
    with pytest.raises(ResultError, match="side='read' of L1.mlp_out is not decoded"):
        out.plot_tokens("read")
    neurons = decode_neurons(model, "1-2", controls=20)
    loaded = NeuronMap.load(neurons.save(tmp_path / "neurons.safetensors"))
    assert loaded.words == neurons.words
    assert loaded.layers == (1, 2)
    assert len(neurons.to_frame()) == 2 * 128
    assert len(neurons.plot().axes[0].lines) == 4


@pytest.mark.parametrize("family", [*tiny.REGISTRY, *tiny.OWN_ATTENTION])
def test_every_family_can_be_read(family):
    model = load(family)
    if family == "mixtral":
        with pytest.raises(ModelError, match="has no W_out: this block is a mixture of experts"):
            decode_neurons(model)
    else:
        assert decode_neurons(model, controls=4).kurtosis.isfinite().all()
    for which in ("ov", "qk"):
        assert svd(model, 2, 1, which, n=2, top=2).values.isfinite().all()


@pytest.mark.bad_input
def test_errors_say_what_was_expected():
    model = load("gpt2")
    with pytest.raises(ResultError, match="expected 'top', 'bottom' or 'both'"):
        decode(model, "L0.mlp_post.N3").plot(end="middle")
    with pytest.raises(SiteError, match="'L0.resid_pre' does not name weights"):
        decode(model, "L0.resid_pre")
    with pytest.raises(SiteError, match="does not name weights"):
        decode(model, "L0.mlp_post.N3@-1")
    with pytest.raises(SiteError, match="neurons are 'L3.mlp_post.N77'|no numbered units"):
        decode(model, "L0.mlp_out.N3")
    with pytest.raises(MetricError, match=r"shape \[3\]; expected \[..., 32\]"):
        decode(model, torch.ones(3))
    with pytest.raises(MetricError, match="not finite"):
        decode(model, torch.full((2, 32), torch.nan))
    for what in ([], [torch.ones(32)], torch.ones(32).numpy()):
        with pytest.raises(MetricError, match="expected a site of weights, several, or a tensor"):
            decode(model, what)
    with pytest.raises(MetricError, match="controls=0; expected 1 or more"):
        decode_neurons(model, controls=0)
    for n in (0, -1):
        with pytest.raises(MetricError, match=f"n={n}; expected 1 or more"):
            svd(model, 0, 1, n=n)
    with pytest.raises(ModelError, match="layer 0 of this gpt2 model has no rotary positions"):
        svd(model, 0, 1, "qk", offset=2)
    with pytest.raises(MetricError, match="got 1 names for 2 vectors"):
        decode(model, torch.ones(2, 32), names=["a"])
    with pytest.raises(MetricError, match="top=500; expected 1 to 120"):
        decode(model, "L0.mlp_post.N3", top=500)
    with pytest.raises(MetricError, match="through='both'"):
        decode(model, "L0.mlp_post.N3", through="both")
    with pytest.raises(ModelError, match="is not gated"):
        decode_neurons(model, side="gate")
    with pytest.raises(ModelError, match="side='up'; expected 'in', 'gate' or 'out'"):
        decode_neurons(model, side="up")
    with pytest.raises(MetricError, match="got head=None; expected a head"):
        svd(model, 0)
    with pytest.raises(MetricError, match="got head=1; expected no head"):
        svd(model, 0, 1, "mlp_in")
    with pytest.raises(MetricError, match="which='vo'"):
        svd(model, 0, 1, "vo")
