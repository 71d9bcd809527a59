"""Full circuits against runs of the model: what they say of the first layer is what happens there."""

import pytest
import torch

import interp
from interp.errors import MetricError, ModelError, ResultError
from interp.weight_lenses import Circuit, copying_scores, ov_circuit, qk_circuit, qk_positions
from interp.weight_lenses.ends import tokens_in, unembedding
from interp.weight_lenses.heads import final_centres, written
from tests import tiny
from tests.weight_lenses.peer import hooked

ALIBI = ("bloom", "falcon-sequential")
VARIANTS = {
    "stablelm-qk_norm": {"qk_layernorm": True},
    "phi-qk_norm": {"qk_layernorm": True},
    "gpt_neox-half": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0,
                                          "partial_rotary_factor": 0.5}},
    "gpt_neox-whole": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0,
                                           "partial_rotary_factor": 1.0}},
}  # fmt: skip
FAMILIES = [*tiny.REGISTRY, *tiny.OWN_ATTENTION, "falcon-heads", "falcon-sequential", *VARIANTS]


def load(family):
    if family in VARIANTS:
        hf = tiny.build(family.partition("-")[0], **VARIANTS[family])
    else:
        hf = tiny.shared(family)
    return interp.load(hf, check=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_the_first_layer_are_the_qk_circuits(family):
    model, ids = load(family), tiny.tokens(2, 7)
    cache = model.run(ids, save=["L0.attn_scores", "L0.resid_pre"]).cache
    scores = cache["L0.attn_scores"]
    cap = getattr(model.hf.config, "attn_logit_softcapping", None)
    if cap:
        scores = torch.atanh(scores / cap) * cap
    rotary = "rot_q" not in model.anatomy.refused
    learned = "pos_embed" not in model.anatomy.refused
    for head in (0, 3):
        for offset in (0, 1, 3):
            queries = torch.arange(offset, 7)
            options = {"offset": offset} if rotary else {}
            got, want = [], []
            for row in range(2):
                start = cache["L0.resid_pre"][row] if learned else None
                circuit = qk_circuit(model, 0, head, start=start, **options)
                at = torch.arange(7) if learned else ids[row]
                both = circuit.matrix.entries(at[queries], at[queries - offset])
                got.append(both.diagonal())
                want.append(scores[row, head, queries, queries - offset])
            got, want = torch.stack(got), torch.stack(want)
            if family in ALIBI:  # which adds the same to both prompts
                got, want = got[0] - got[1], want[0] - want[1]
            seen = want.isfinite() & (want > -1e30)
            assert int(seen.sum()) >= 4
            assert torch.allclose(got[seen], want[seen], atol=1e-5)


@pytest.mark.parametrize("family", [*tiny.REGISTRY, *tiny.OWN_ATTENTION])
def test_what_a_head_of_the_first_layer_adds_to_the_logits_is_the_ov_circuits(family):
    """Exactly, the final norm's scale frozen at 1; a value bias adds a constant."""
    model, ids = load(family), tiny.tokens(1, 6)
    if "pos_embed" not in model.anatomy.refused:
        model = without_positions(model)
    cache = model.run(ids, save=["L0.result", "L0.pattern"]).cache
    out, groups = unembedding(model), model.n_heads // model.n_kv_heads
    b_v = model.weights.folded().layer(0).b_V.repeat_interleave(groups, 0)
    constant = torch.einsum("he,hed->hd", b_v, model.weights.layer(0).W_O)
    behind = model.anatomy.blocks[0].norm_after_attn
    for head in (0, 3):
        circuit = ov_circuit(model, 0, head)
        got = cache["L0.pattern"][0, head] @ circuit.matrix.rows(ids[0])
        added = cache["L0.result"][0, :, head]
        added = added - constant[head] * model.anatomy.residual_multiplier
        added = written(model, 0, "attn", added) if behind else added
        assert torch.allclose(got, added @ out, atol=1e-5)


@pytest.mark.parametrize("family", [*tiny.REGISTRY, *tiny.OWN_ATTENTION])
def test_both_ends_of_the_stream_are_the_models_own(family):
    """What branches write, up to a post-norm's scale; and what the head makes of the stream."""
    model, ids = load(family), tiny.tokens(1, 6)
    sites = ["L1.z", "L1.attn_out", "L1.mlp_out", "ln_final.normalized"]
    sites += [] if family == "mixtral" else ["L1.mlp_post"]
    run, at = model.run(ids, save=sites), model.weights.layer(1)
    branches = {"attn": torch.einsum("bphe,hed->bpd", run.cache["L1.z"], at.W_O) + at.b_O}
    if family != "mixtral":
        branches["mlp"] = run.cache["L1.mlp_post"] @ at.W_out + at.b_out
    for name, value in branches.items():
        got, want = written(model, 1, name, value), run.cache[f"L1.{name}_out"]
        if final_centres(model):
            want = want - want.mean(-1, keepdim=True)
        if "gemma" in family or family == "olmo2":  # a norm behind the branch: frozen scale
            got, want = (x / x.norm(dim=-1, keepdim=True) for x in (got, want))
            if family in ("gemma2", "gemma3_text", "olmo2"):
                assert model.anatomy.blocks[1].norm_after_attn
        assert torch.allclose(got, want, atol=1e-5)
    logits, cap = run.logits, getattr(model.hf.config, "final_logit_softcapping", None)
    logits = torch.atanh(logits / cap) * cap if cap else logits
    scaling = getattr(model.hf.config, "logits_scaling", None) or 1.0
    read = run.cache["ln_final.normalized"] @ unembedding(model, centre=False)
    bias = model.weights.folded().b_U / scaling
    assert torch.allclose(read + bias, logits, atol=1e-4)


def without_positions(model):
    hf = tiny.build(model.anatomy.name)
    fresh = interp.load(hf, check=False)
    with torch.no_grad():
        fresh.anatomy.pos_embed.weight.zero_()
    return fresh


@pytest.mark.filterwarnings("ignore")
def test_transformer_lens_multiplies_the_same_matrices():
    model, theirs = load("gpt2"), hooked()
    for layer, head in ((0, 1), (2, 3)):
        full = theirs.W_E @ theirs.W_V[layer, head] @ theirs.W_O[layer, head] @ theirs.W_U
        ours = ov_circuit(model, layer, head, normalise=False).matrix.dense()
        assert torch.allclose(ours, full, atol=1e-6)
        scores = theirs.W_E @ theirs.W_Q[layer, head] @ theirs.W_K[layer, head].T @ theirs.W_E.T
        ours = qk_circuit(model, layer, head, normalise=False, biases=False).matrix.dense()
        assert torch.allclose(ours, scores / 8**0.5, atol=1e-6)


def test_bare_weights_are_the_papers_product():
    model, bare = load("gpt_neox"), {"folded": False, "normalise": False}
    at = model.weights.layer(1)
    w_e, w_u = model.weights.W_E, model.weights.W_U
    ov = ov_circuit(model, 1, 2, centre=False, **bare).matrix.dense()
    assert torch.allclose(ov, w_e @ at.W_V[2] @ at.W_O[2] @ w_u, atol=1e-5)
    qk = qk_circuit(model, 1, 2, biases=False, **bare).matrix.dense()
    assert torch.allclose(qk, w_e @ at.W_Q[2] @ at.W_K[2].T @ w_e.T / 8**0.5, atol=1e-5)


def test_tokens_and_positions_make_up_a_gpt2_score():
    """(t + p) W_QK (t' + p'), norms' scales frozen: four circuits, of which two are of one kind."""
    model, ids = load("gpt2"), tiny.tokens(1, 6)
    options = {"normalise": False, "biases": False}
    stream = model.run(ids, save="L0.resid_pre").cache["L0.resid_pre"][0]
    whole = qk_circuit(model, 0, 2, start=stream, **options).matrix.dense()
    places = qk_positions(model, 0, 2).matrix
    tokens = qk_circuit(model, 0, 2, **options).matrix
    parts = tokens.entries(ids[0], ids[0]) + places.entries(range(6), range(6))
    parts += tokens.left[ids[0]] @ places.right[:, :6] + places.left[:6] @ tokens.right[:, ids[0]]
    assert torch.allclose(parts, whole, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "gemma2", "bloom"])
def test_tokens_may_start_behind_the_first_mlp(family):
    model = load(family)
    rows, later = tokens_in(model), tokens_in(model, through_mlp0=True)
    assert rows.shape == later.shape == (tiny.VOCAB, tiny.D_MODEL)
    ids = tiny.tokens(4, 1)
    silent = {"L0.attn_out": interp.Zero(), "pos_embed": interp.Zero()}
    if "pos_embed" in model.anatomy.refused:
        del silent["pos_embed"]
    cache = model.run(ids, save=["embed", "L0.mlp_out"], edit=silent).cache
    assert torch.allclose(rows[ids], cache["embed"])
    assert torch.allclose(later[ids], cache["embed"] + cache["L0.mlp_out"], atol=1e-5)
    assert "MLP 0" in ov_circuit(model, 1, 0, through_mlp0=True).title


def test_copying_scores_are_those_of_the_circuits_and_of_head_scores():
    model = load("llama")
    scores = copying_scores(model, controls=4)
    for layer, head in ((0, 0), (2, 3)):
        one = ov_circuit(model, layer, head).copying_score()
        assert float(scores.values[layer, head]) == pytest.approx(one, abs=1e-4)
    bare = copying_scores(model, folded=False, normalise=False, centre=False).values
    assert torch.allclose(bare, interp.head_scores(model, n=1).copying_ov, atol=1e-4)


def test_a_planted_copying_head_is_found_and_random_heads_are_not():
    hf = tiny.build("llama", num_key_value_heads=4)
    attn = hf.model.layers[1].self_attn
    with torch.no_grad():
        hf.lm_head.weight.copy_(hf.model.embed_tokens.weight)
        attn.o_proj.weight[:, :8] = attn.v_proj.weight[:8].T  # W_O = W_Vᵀ in head 0
        attn.o_proj.weight[:, 8:16] = -attn.v_proj.weight[8:16].T
    model = interp.load(hf, check=False)
    scores = copying_scores(model, folded=False, seed=1)
    assert scores.values[1, 0] > 0.99
    assert scores.values[1, 1] < -0.99
    assert scores.null.abs().max() < 0.75
    assert scores.beyond_null()[1, 0]
    assert not scores.beyond_null()[1, 1]
    assert torch.equal(scores.null, copying_scores(model, folded=False, seed=1).null)


def test_titles_state_the_offset():
    model = load("gpt_neox")
    assert "content alone (offset 0)" in qk_circuit(model, 0, 1).title
    assert "key at offset 1" in qk_circuit(model, 0, 1, offset=1).title
    assert qk_circuit(load("gpt2"), 0, 1).offset is None
    plain, centred = (qk_circuit(model, 0, 1, centre=c).matrix.dense() for c in (False, True))
    assert torch.allclose(centred, plain - plain.mean(-1, keepdim=True), atol=1e-6)
    different = qk_circuit(model, 0, 1, 1).matrix.dense() - qk_circuit(model, 0, 1).matrix.dense()
    assert different.abs().max() > 1e-3


def test_frames_rows_figures_and_files(tmp_path):
    model = load("gpt_neox")
    circuit = qk_circuit(model, 1, 2, offset=1)
    dense = circuit.matrix.dense()
    frame = circuit.top(5)
    assert list(frame.columns) == ["query token", "key token", "value"]
    assert frame["value"][0] == pytest.approx(float(dense.max()))
    assert dense[int(frame["query token"][0]), int(frame["key token"][0])] == dense.max()
    assert circuit.row("7", 3)["value"].tolist() == pytest.approx(dense[7].topk(3).values.tolist())
    assert circuit.column(7, 1)["token"][0] == str(int(dense[:, 7].argmax()))
    again = Circuit.load(circuit.save(tmp_path / "circuit.safetensors"))
    assert torch.equal(again.matrix.dense(), dense)
    assert (again.title, again.provenance) == (circuit.title, circuit.provenance)
    axes = circuit.plot(["3", 4, 5]).axes[0]
    assert "offset 1" in axes.get_title().replace("\n", " ")
    assert axes.images[0].get_clim()[0] == -axes.images[0].get_clim()[1]
    assert len(circuit.to_frame()) == 100
    scores = copying_scores(model, controls=3)
    loaded = type(scores).load(scores.save(tmp_path / "copying.safetensors"))
    assert torch.equal(loaded.null, scores.null)
    assert len(scores.to_frame()) == 12
    assert "random heads" in scores.plot().axes[0].get_title().replace("\n", " ")


@pytest.mark.bad_input
def test_errors_say_what_to_do():
    with pytest.raises(ModelError, match="layer 3, head 0: this model has layers 0 to 2"):
        ov_circuit(load("llama"), 3, 0)
    with pytest.raises(ModelError, match="no rotary positions, so its token-token scores"):
        qk_circuit(load("gpt2"), 0, 0, offset=1)
    with pytest.raises(ModelError, match="has no W_pos"):
        qk_positions(load("llama"), 0, 0)
    behind = interp.load(
        tiny.build("opt", word_embed_proj_dim=20, do_layer_norm_before=False), check=False
    )
    with pytest.raises(ModelError, match="normalises the residual stream itself"):
        ov_circuit(behind, 0, 0)
    assert ov_circuit(behind, 0, 0, folded=False, normalise=False).matrix.shape == (120, 120)
    for start in (torch.ones(3, 5), torch.ones(32), torch.full((3, 32), torch.nan)):
        with pytest.raises(MetricError, match=r"start has shape .*; expected finite numbers"):
            qk_circuit(load("llama"), 0, 0, start=start)
    with pytest.raises(MetricError, match="controls=0; expected 1 or more"):
        copying_scores(load("llama"), controls=0)
    with pytest.raises(ResultError, match="no tokens were given"):
        ov_circuit(load("llama"), 0, 0).plot([])
    with pytest.raises(ResultError, match="no row or column 'zebra'"):
        ov_circuit(load("llama"), 0, 0).row("zebra")
