"""HookedTransformers through interp.load: the same numbers under the same names, or an error."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import interp
from interp.errors import ModelError, PromptError, SiteError
from interp.models.hooked import from_weights
from interp.models.hooked.fields import _IDLE, _REFUSED, DEFAULTS, SIZES
from tests.cases.loading import quiet
from tests.models.hooked import GRID, IDS, VOCAB, build

CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}
#: Configurations in which all sites are compared.
SITES = ("norm LN", "norm None", "norm RMSPre", "attention only", "parallel", "gated", "rotary",
         "grouped", "bidirectional", "norms of q and k", "RMS behind branches", "solu_ln")  # fmt: skip


def far(ours, theirs):
    """The largest difference, as a share of the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("case", GRID)
def test_logits_are_the_sources_own_and_every_site_is_proven(case, dtype):
    hooked = build(case, dtype=dtype)
    model = interp.load(hooked, check=dtype is torch.float32)
    logits = model.run(IDS).logits
    assert logits.dtype == dtype
    assert far(logits, hooked(IDS)) < CLOSE[dtype]
    if dtype is torch.float64:
        return
    assert not [why for why in model.report().refused.values() if "self-check failed" in why]


@pytest.mark.parametrize("case", ["norm LN", "rotary", "bidirectional"])
def test_bfloat16(case):
    hooked = build(case, dtype=torch.bfloat16)
    logits = interp.load(hooked).run(IDS).logits
    assert logits.dtype is torch.bfloat16
    assert far(logits.float(), hooked(IDS).float()) < 0.05


@pytest.mark.parametrize("case", SITES)
def test_sites_hold_what_hooks_of_the_same_name_see(case):
    hooked = build(case, use_hook_mlp_in=case != "attention only")
    hooked.set_use_attn_result(True)
    model = interp.load(hooked)
    run = model.run(IDS, save=[*model.sites(), "L*.result"])
    _, cache = hooked.run_with_cache(IDS)
    compared = 0
    for site in [*model.sites(), *model.sites("L*.result")]:
        name = interp.Site.parse(site).hook_name
        point = site.partition(".")[2]
        if name not in cache or point in ("attn.input", "mlp.input"):
            continue
        theirs, ours = cache[name], run.cache[site]
        if name.endswith("hook_attn_scores"):
            ours, theirs = (x.masked_fill(cache[name].isinf(), 0) for x in (ours, theirs))
        if point == "k" or point == "v":
            theirs = theirs[:, :, :: theirs.shape[2] // ours.shape[2]]
        assert far(ours, theirs) < 1e-5, site
        compared += 1
    assert compared >= 20


@pytest.mark.parametrize("case", ["norm LN", "norm None", "rotary", "bidirectional", "gated",
                                  "attention only, LNPre", "parallel", "windows"])  # fmt: skip
def test_the_full_check_passes(case):
    report = interp.load(build(case), check="full").report()
    assert not [why for why in report.refused.values() if "self-check failed" in why]
    assert report.worst["all sites hooked == eager attention"] == 0


@pytest.mark.parametrize(("engine", "case"), [
    ("replay", "norm LN"), ("replay", "norm None"), ("replay", "bidirectional"),
    ("replay", "attention only"), ("replay", "output vocabulary"), ("plain", "bidirectional"),
])  # fmt: skip
def test_patching_is_run_with_hooks(case, engine):
    hooked = build(case, dtype=torch.float64)
    model = interp.load(hooked)
    clean, corrupted = IDS, IDS.clone()
    corrupted[:, 4] = (corrupted[:, 4] + 1) % VOCAB
    pairs = model.prompts(clean, corrupted, answers=[0, 1, 2], foils=[3, 3, 3])
    rows, columns = torch.arange(3), torch.tensor([0, 1, 2])

    def score(logits):
        return logits[:, -1][rows, columns] - logits[:, -1, 3]

    _, cache = hooked.run_with_cache(clean)

    def put(name, index):
        def hook(x, hook):
            x = x.clone()
            x[index] = cache[name][index]
            return x

        return score(hooked.run_with_hooks(corrupted, fwd_hooks=[(name, hook)]))

    stream = interp.patch(model, pairs, "L*.resid_pre", positions="each", engine=engine)
    heads = interp.patch(model, pairs, "L*.H*.z", positions="all", engine=engine)
    assert stream.engine == heads.engine == engine
    for layer in range(2):
        for column in range(10):
            want = put(f"blocks.{layer}.hook_resid_pre", (slice(None), column))
            assert torch.allclose(stream.per_prompt[layer, column], want, atol=1e-10)
        for head in range(4):
            want = put(f"blocks.{layer}.attn.hook_z", (slice(None), slice(None), head))
            assert torch.allclose(heads.per_prompt[layer, head], want, atol=1e-10)


@pytest.mark.parametrize(
    "case", ["norm LN", "grouped", "gated", "attention only", "output vocabulary"]
)
def test_weights_are_the_sources_own_and_are_copies(case):
    hooked = build(case)
    model = interp.load(hooked)
    groups = model.n_heads // model.n_kv_heads
    names = ["W_E", "W_pos", "W_U", "b_U", "W_Q", "W_O", "b_Q", "b_O"]
    names += [] if case == "attention only" else ["W_in", "W_out", "b_out"]
    names += ["W_gate"] if case == "gated" else []
    for name in names:
        assert torch.equal(getattr(model, name).as_subclass(torch.Tensor), getattr(hooked, name))
    for name in ("W_K", "W_V", "b_K", "b_V"):
        ours = getattr(model, name).as_subclass(torch.Tensor)
        assert torch.equal(ours, getattr(hooked, name)[:, ::groups])
    before = model.run(IDS).logits
    for parameter in hooked.parameters():
        parameter.zero_()
    assert torch.equal(model.run(IDS).logits, before)


def test_folded_weights_give_the_same_logits_as_the_sources_own_folding():
    hooked = build("norm LN")
    model = interp.load(hooked)
    folded = model.weights.folded()
    with quiet():
        hooked.process_weights_(center_writing_weights=False, center_unembed=False)
    processed = interp.load(hooked)
    assert far(processed.run(IDS).logits, model.run(IDS).logits) < 1e-5
    for name in ("W_Q", "W_in", "W_U"):
        difference = getattr(folded, name) - getattr(hooked, name)
        axis = 0 if name == "W_U" else -2  # TransformerLens takes the mean over d_model out as well
        assert float((difference - difference.mean(axis, keepdim=True)).abs().max()) < 1e-5


def test_what_it_is_called_and_what_it_reads(bpe_tokenizer):
    hooked = build(d_vocab=len(bpe_tokenizer), model_name="toy")
    hooked.tokenizer = bpe_tokenizer
    model = interp.load(hooked)
    assert model.name == "toy"
    assert model.tokenizer is bpe_tokenizer
    assert far(model.run("The capital").logits, hooked(model.to_tokens("The capital"))) < 1e-5
    assert interp.load(build()).name == "HookedTransformer"
    assert interp.load(build(), tokenizer=bpe_tokenizer).tokenizer is bpe_tokenizer


def test_a_tokenizer_is_left_out_where_the_model_answers_in_other_tokens(bpe_tokenizer):
    hooked = build(d_vocab=len(bpe_tokenizer), d_vocab_out=7)
    hooked.tokenizer = bpe_tokenizer
    with pytest.warns(UserWarning, match="answers in 7 columns that are no tokens"):
        model = interp.load(hooked)
    assert model.tokenizer is None
    assert (model.d_vocab, model.d_vocab_out) == (len(bpe_tokenizer), 7)


def test_a_separate_output_vocabulary():
    model = interp.load(build("larger output vocabulary"))
    assert (model.d_vocab, model.d_vocab_out) == (VOCAB, 30)
    assert model.run(IDS).logits.shape[-1] == model.W_U.shape[-1] == 30
    assert interp.lens(model, IDS, top=30).top_ids.shape[-1] == 30
    pairs = model.prompts(IDS, IDS.flip(0), answers=[25, 26, 27], foils=[28, 28, 28])
    assert interp.patch(model, pairs, "L*.resid_pre").per_prompt.isfinite().all()
    with pytest.raises(PromptError, match="id 30 is not in the vocabulary, expected 0 to 29"):
        model.prompts(IDS, IDS.flip(0), answers=[30, 26, 27])
    with pytest.raises(
        PromptError, match="'Paris' is a word, but this model answers in 30 columns"
    ):
        model.prompts(IDS, IDS.flip(0), answers=["Paris", 26, 27])
    with pytest.raises(PromptError, match="expected 1 to 30, the vocabulary's size"):
        interp.lens(model, IDS, top=31)
    with pytest.raises(ModelError, match="answers in 30 others"):
        interp.weight_lenses.copying_scores(model)
    circuit = interp.weight_lenses.ov_circuit(model, 0, 0)
    assert (len(circuit.rows), len(circuit.columns)) == (VOCAB, 30)
    with pytest.raises(ModelError, match="reads 20 tokens and answers in 30 others"):
        model.generate(IDS, max_new_tokens=1)


def test_generation_is_greedy_decoding_and_is_refused_where_attention_looks_ahead():
    model = interp.load(build("rotary"))
    made = model.generate(IDS[:, :6], max_new_tokens=3, do_sample=False)
    ids = IDS[:, :6]
    for _ in range(3):
        ids = torch.cat([ids, model.run(ids).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(made, ids)
    with pytest.raises(ModelError, match="bidirectional: it sees later tokens"):
        interp.load(build("bidirectional")).generate(IDS, max_new_tokens=1)


def test_what_a_model_lacks_is_refused_by_name():
    model = interp.load(build("attention only, no norms"))
    for site, why in {"L0.mlp_out": "attention-only", "L0.resid_mid": "use resid_post",
                      "L0.ln1.scale": "has no norms", "L0.rot_q": "no rotary"}.items():  # fmt: skip
        with pytest.raises(SiteError, match=why):
            model.run(IDS, save=site)
    assert torch.equal(model.weights.folded().W_Q, model.W_Q)
    with pytest.raises(ModelError, match="attention-only"):
        _ = model.W_in
    with pytest.raises(ModelError, match="its MLP is not gated"):
        _ = interp.load(build()).W_gate
    with pytest.raises(SiteError, match="run in parallel"):
        interp.load(build("parallel")).run(IDS, save="L0.resid_mid")


@pytest.mark.parametrize("case", ["windows, rotary", "capped scores"])
def test_twins_and_folders(case, tmp_path):
    model = interp.load(build(case))
    twin = model.random_twin(seed=1)
    assert twin.hf.config.to_dict() == model.hf.config.to_dict()
    assert not torch.allclose(twin.run(IDS).logits, model.run(IDS).logits)
    model.hf.save_pretrained(tmp_path)
    again = interp.load(tmp_path)
    assert again.weights_hash == model.weights_hash
    assert far(again.run(IDS).logits, model.run(IDS).logits) < 1e-6


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"positional_embedding_type": "shortformer"}, "attention reads two tensors"),
        ({"positional_embedding_type": "alibi"}, "ALiBi's biases are not written here"),
        ({"act_fn": "xielu"}, "cfg.act_fn='xielu', which is refused: expected one of 'relu'"),
        ({"post_embedding_ln": True}, "cfg.post_embedding_ln=True, which is refused: a norm"),
        ({"num_experts": 2, "experts_per_token": 1, "gated_mlp": True}, "mixtures of experts"),
        ({"use_attention_sinks": True}, "the rows of a pattern do not sum to one"),
        ({"clip_qkv": 1.0}, "clipped q, k and v"),
        ({"use_logn_attn": True}, "cfg.use_logn_attn=True"),
        ({"use_yarn_rope": True, "positional_embedding_type": "rotary"}, "YaRN"),
        ({"use_NTK_by_parts_rope": True, "positional_embedding_type": "rotary"}, "NTK-by-parts"),
        ({"use_dynamic_ntk_rope": True, "positional_embedding_type": "rotary"}, "depend on the length"),
        ({"original_architecture": "Olmo2ForCausalLM"}, "norms on whole q and k"),
        ({"use_local_attn": True, "window_size": 3, "attn_types": ["local", "local"],
          "attention_dir": "bidirectional"}, "leaves the window out"),
        ({"gated_mlp": True, "act_fn": "solu_ln"}, "leaves its gate out"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_computations_that_are_not_written_are_refused_by_the_fields_name(changes, why):
    with pytest.raises(ModelError, match=why):
        interp.load(build(**changes))


def test_every_field_of_the_config_is_accounted_for():
    with quiet():
        from transformer_lens import HookedTransformerConfig

    fields = {field.name for field in dataclasses.fields(HookedTransformerConfig)}
    known = {*DEFAULTS, *SIZES, *_IDLE, *_REFUSED}
    assert fields <= known
    assert not set(DEFAULTS) & _IDLE
    assert not set(_REFUSED) & {*DEFAULTS, *_IDLE}


def test_defaults_are_the_sources_own():
    with quiet():
        from transformer_lens import HookedTransformerConfig

    fields = {field.name: field.default for field in dataclasses.fields(HookedTransformerConfig)}
    assert {name: fields[name] for name in DEFAULTS} == DEFAULTS


def test_a_field_of_a_later_version_is_refused_as_soon_as_it_is_set():
    hooked = build()
    hooked.cfg.attention_from_the_future = False
    interp.load(hooked)
    hooked.cfg.attention_from_the_future = True
    with pytest.raises(ModelError, match="attention_from_the_future=True.*this field is not known"):
        interp.load(hooked)


def test_hooks_that_change_the_run_and_changed_parts_are_refused():
    hooked = build()
    hooked.add_hook("blocks.0.hook_mlp_out", lambda x, hook: x * 0)
    with pytest.raises(ModelError, match="cannot be taken over exactly.*hooks of its own"):
        interp.load(hooked)
    hooked.reset_hooks()
    interp.load(hooked)
    hooked.blocks[0].mlp.act_fn = torch.sigmoid
    with pytest.raises(ModelError, match="the logits deviate by"):
        interp.load(hooked)
    changed = build()
    changed.blocks[0].register_parameter("extra", torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(
        ModelError, match=r"nothing in this config reads the weight 'blocks.0.extra'"
    ):
        interp.load(changed)


def test_a_bias_on_a_product_is_refused():
    hooked = build("gated")
    hooked.blocks[0].mlp.b_in += 1
    with pytest.raises(ModelError, match=r"'blocks.0.mlp.b_in' is not zero"):
        interp.load(hooked)


def test_weights_are_asked_for_by_name():
    hooked = build()
    cfg, weights = vars(hooked.cfg), dict(hooked.state_dict())
    assert torch.equal(from_weights(cfg, weights)(IDS).logits, interp.load(hooked).run(IDS).logits)
    without = {name: value for name, value in weights.items() if not name.endswith("b_O")}
    assert float(interp.Model.wrap(from_weights(cfg, without), None, name="x").b_O.abs().max()) == 0
    with pytest.raises(ModelError, match=r"the weights lack 'blocks.1.attn.W_Q' \[16, 16\]"):
        from_weights(cfg, {k: v for k, v in weights.items() if k != "blocks.1.attn.W_Q"})
    with pytest.raises(ModelError, match=r"'unembed.W_U' holds torch.float32 that do not fit"):
        from_weights(cfg, {**weights, "unembed.W_U": torch.zeros(3, 3)})
    with pytest.raises(ModelError, match=r"cfg.n_layers=0; expected a positive number"):
        from_weights({**cfg, "n_layers": 0}, weights)
    with pytest.raises(ModelError, match="lack 'embed.W_E'"):
        from_weights(cfg, {})


def test_what_is_no_decoder_and_what_is_asked_of_an_object():
    class HookedEncoder:
        cfg = None

    with pytest.raises(ModelError, match="was given a HookedEncoder; expected a decoder-only"):
        interp.load(HookedEncoder())
    with pytest.raises(ModelError, match="device=, dtype= or revision= were given"):
        interp.load(build(), dtype="float64")


def test_angles_of_a_model_cast_to_float64_stay_those_of_float32():
    hooked = build("rotary")
    with quiet():
        hooked.to(torch.float64)
    assert far(interp.load(hooked).run(IDS).logits, hooked(IDS)) < 1e-12
