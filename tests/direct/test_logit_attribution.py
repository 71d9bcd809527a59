"""Parts sum to the model's own logit, whatever the family, the norm, the multiplier or the cap."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import interp
from interp.direct.result import LogitAttribution
from interp.direct.verb import logit_attribution
from interp.errors import ModelError, PromptError, ResultError, RunError, SiteError
from tests import tiny
from tests.engine.cases import ANSWERS, FOILS, pairs

FAMILIES = [*tiny.REGISTRY, *tiny.OWN_ATTENTION, *tiny.FALCONS]


def model_of(family):
    return interp.load(tiny.shared(family), check=False)


def own_logits(model, tokens):
    """The model's logits before its soft-cap, from the Hugging Face model with the cap off."""
    config, cap = model.hf.config, getattr(model.hf.config, "final_logit_softcapping", None)
    if cap:
        config.final_logit_softcapping = None
    try:
        return model.run(tokens).logits
    finally:
        if cap:
            config.final_logit_softcapping = cap


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("by", ["component", "head", "neuron"])
def test_parts_sum_to_the_models_own_logit(family, by):
    model = model_of(family)
    prompts = pairs(model)
    if family == "mixtral" and by == "neuron":
        with pytest.raises(SiteError, match="mixture of experts"):
            logit_attribution(model, prompts, by=by)
        return
    logits = own_logits(model, prompts.clean)[:, -1]
    for asked, want in (
        (prompts, (logits.gather(1, ANSWERS) - logits.gather(1, FOILS))[:, 0]),
        (model.prompts(prompts.clean, answers=ANSWERS), logits.gather(1, ANSWERS)[:, 0]),
    ):
        found = logit_attribution(model, asked, by=by, neurons=7, draws=0)
        assert torch.allclose(found.total, want, atol=1e-5)
        assert float((found.per_prompt.sum(0) - want).abs().max()) < 1e-4
        assert found.error < 1e-5
        assert float(want.abs().max()) > 0.1


def test_a_saturated_soft_cap_does_not_matter():
    hf = tiny.build("gemma2")
    hf.config.final_logit_softcapping = 0.05
    model = interp.load(hf, check=False)
    found = logit_attribution(model, pairs(model), by="head")
    assert float(model.run(tiny.tokens(4)).logits.abs().max()) < 0.0501
    assert float(found.total.abs().max()) > 0.5
    assert found.error < 1e-5


def test_the_mean_over_answer_sets_is_the_metrics():
    model = model_of("llama")
    prompts = pairs(model)
    answers = torch.tensor([[5, 9, -1], [6, -1, -1], [7, 10, 11], [8, 12, -1]])
    foils = torch.tensor([[15, -1], [16, 20], [17, 21], [18, -1]])
    sets = interp.Prompts(prompts.clean, prompts.corrupted, answers=answers, foils=foils)
    found = logit_attribution(model, sets)
    score = interp.metrics.evaluate("logit_diff", model.run(sets).logits, sets)
    assert torch.allclose(found.total, score, atol=1e-5)
    assert torch.allclose(found.per_prompt.sum(0), score, atol=1e-4)


def test_each_position_tokens_and_lists():
    model = model_of("granite")
    prompts = pairs(model)
    logits = model.run(prompts).logits
    found = logit_attribution(model, prompts, tokens=[5, 40, 7], positions="each")
    assert [axis.name for axis in found.axes] == ["part", "token", "position"]
    assert found.per_prompt.shape == (len(found.names), 3, 10, 4)
    want = logits[..., [5, 40, 7]].permute(2, 1, 0)
    assert torch.allclose(found.per_prompt.sum(0), want, atol=1e-4)
    assert torch.allclose(found.total, want, atol=1e-5)
    some = logit_attribution(model, prompts, tokens=[40], positions=["here", -2])
    rows, here = torch.arange(4), prompts.positions["here"]
    assert torch.allclose(some.total[0, 0], logits[rows, here, 40], atol=1e-5)
    assert torch.allclose(some.total[0, 1], logits[:, -2, 40], atol=1e-5)
    picked = found.select(token=40, position=8)
    assert torch.allclose(
        picked.per_prompt, some.select(position=-2, token=40).per_prompt, atol=1e-6
    )


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_does_not_count(padding):
    model = model_of("gpt2")
    prompts, alone = pairs(model, padding), []
    found = logit_attribution(model, prompts, by="head")
    for row in range(4):
        ids = prompts.clean.ids[row][prompts.clean.mask[row]][None]
        one = model.prompts(ids, answers=ANSWERS[row : row + 1], foils=FOILS[row : row + 1])
        alone.append(logit_attribution(model, one, by="head").per_prompt)
    assert torch.allclose(found.per_prompt, torch.cat(alone, -1), atol=1e-5)
    with pytest.warns(UserWarning, match="differ in length"):
        each = logit_attribution(model, prompts, positions="each")
    assert torch.equal(each.per_prompt[0].isnan().T, ~prompts.clean.mask)
    assert torch.isfinite(each.values).all()
    assert torch.isfinite(each.null).all()


def test_a_direction_is_a_plain_product_with_the_stream():
    model = model_of("olmo2")
    prompts, generator = pairs(model), torch.Generator().manual_seed(0)
    for direction in (
        torch.randn(32, generator=generator),
        torch.randn(4, 32, generator=generator),
    ):
        for at, site in (("final", "L-1.resid_post"), ("L1.resid_mid", "L1.resid_mid")):
            found = logit_attribution(model, prompts, direction=direction, at=at, by="head")
            stream = model.run(prompts, save=site).cache[site][:, -1]
            assert torch.allclose(found.total, (stream * direction).sum(-1), atol=1e-5)
            assert torch.allclose(found.per_prompt.sum(0), found.total, atol=1e-4)
            assert "bias" not in found.names
            assert found.control == "random directions"


def test_neurons_are_the_strongest_of_all_and_the_rest_is_kept():
    model = model_of("gemma2")
    prompts = pairs(model)
    every = logit_attribution(model, prompts, by="neuron", neurons=3 * 64, draws=0)
    few = logit_attribution(model, prompts, by="neuron", neurons=5, draws=0)
    neurons = {n: float(v) for n, v in zip(every.names, every.values, strict=True) if ".N" in n}
    best = sorted(neurons, key=lambda name: -abs(neurons[name]))[:5]
    assert {name for name in few.names if ".N" in name} == set(best)
    for name in best:
        assert torch.allclose(few[name], every[name], atol=1e-6)
    assert torch.allclose(few.layers("mlp"), every.layers("mlp"), atol=1e-5)


def test_batches_give_the_same_numbers():
    model = model_of("llama")
    prompts = pairs(model)
    for by in ("head", "neuron"):
        whole = logit_attribution(model, prompts, by=by)
        parts = logit_attribution(model, prompts, by=by, batch=3)
        assert whole.names == parts.names
        assert torch.allclose(whole.per_prompt, parts.per_prompt, atol=1e-6)
        assert torch.allclose(whole.null, parts.null, atol=1e-6)


def test_text_without_answers_takes_the_models_top_token(llama_like_tokenizer):
    hf = tiny.build("llama", vocab_size=len(llama_like_tokenizer))
    model = interp.load(hf, tokenizer=llama_like_tokenizer, check=False)
    text = "The capital of France is"
    logits = model.run(text).logits[0, -1]
    found = logit_attribution(model, text)
    assert found.what == "logit"
    assert found.answers == (model.to_string([int(logits.argmax())]),)
    assert found.provenance.call["own_top_token"] is True
    assert float(found.total) == pytest.approx(float(logits.max()), abs=1e-5)
    pair = logit_attribution(model, text, answers=" Paris", foils=" Tokyo")
    assert (pair.what, pair.answers, pair.foils) == ("logit_diff", (" Paris",), (" Tokyo",))
    named = logit_attribution(model, text, tokens=[" Paris", " Tokyo"], positions="each")
    assert named.axes[1].labels == (" Paris", " Tokyo")
    assert named.axes[2].labels[-1].endswith(" is")


def test_accumulated_is_the_stream_under_the_final_scale():
    model = model_of("stablelm")
    prompts = pairs(model)
    found = logit_attribution(model, prompts, by="head")
    run = model.run(prompts, save=["L*.resid_pre", "L-1.resid_post"])
    norm, head = model.hf.model.norm, model.hf.lm_head
    last = run.cache["L-1.resid_post"][:, -1]
    scale = (last.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    want = []
    for stream in run.cache.stack_residual()[:, :, -1]:
        normed = (stream - stream.mean(-1, keepdim=True)) / scale * norm.weight + norm.bias
        logits = (normed @ head.weight.T).detach()
        want.append((logits.gather(1, ANSWERS) - logits.gather(1, FOILS))[:, 0])
    assert found.steps == ("L0", "L1", "L2", "out")
    assert torch.allclose(found.accumulated(), torch.stack(want), atol=1e-5)
    assert torch.allclose(found.accumulated()[-1], found.total, atol=1e-4)
    assert found.heads().shape == (3, 4, 4)
    by_component = logit_attribution(model, prompts)
    assert torch.allclose(by_component.layers("attn"), found.layers("attn"), atol=1e-5)


def test_a_head_or_a_stream_that_is_not_understood_is_refused():
    hf = tiny.build("llama")
    model = interp.load(hf, check=False)
    forward = hf.forward
    hf.forward = lambda *a, **k: type(out := forward(*a, **k))(logits=out.logits * 2)
    with pytest.raises(ModelError, match="the logits sum to something else.*norm, unembedding"):
        logit_attribution(model, tiny.tokens())
    post = tiny.build("opt", word_embed_proj_dim=20, do_layer_norm_before=False)
    with pytest.raises(ModelError, match="not the sum of its branches"):
        logit_attribution(interp.load(post, check=False), tiny.tokens())
    projected = interp.load(tiny.build("opt", word_embed_proj_dim=20), check=False)
    assert logit_attribution(projected, tiny.tokens()).error < 1e-5


def test_families_that_are_not_known_are_proven_on_the_spot_or_refused():
    for family, holds in (("cohere", True), ("starcoder2", True), ("nemotron", False)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = AutoConfig.for_model(family, **{**tiny._BASE, **tiny._GROUPED})
            model = interp.load(AutoModelForCausalLM.from_config(config).eval())
        if holds:
            assert logit_attribution(model, tiny.tokens()).error < 1e-5
        else:  # its norm multiplies by 1 + weight, which is not to be guessed
            with pytest.raises(ModelError, match="nemotron is the sum of its branches, but"):
                logit_attribution(model, tiny.tokens())


def test_half_precision_runs_and_knows_its_error():
    model = interp.load(tiny.build("gpt2").to(torch.bfloat16), check=False)
    found = logit_attribution(model, pairs(model), by="head")
    assert 1e-5 < found.error < 5e-2 * max(1.0, float(found.per_prompt.abs().max()))


def test_frame_top_save_load_and_plots(tmp_path):
    model = model_of("gpt2")
    found = logit_attribution(model, pairs(model), by="head")
    frame, top = found.to_frame(), found.top(3)
    assert list(frame["part"]) == list(found.names)
    assert frame["value"].sum() == pytest.approx(float(found.total.mean()), abs=1e-4)
    assert top["value"].abs().tolist() == sorted(frame["value"].abs(), reverse=True)[:3]
    assert {"low", "high", "null", "null_std", "null_low", "null_high", "survives"} <= set(frame)
    loaded = LogitAttribution.load(found.save(tmp_path / "a.safetensors"))
    for name, value in vars(found).items():
        same = torch.equal if isinstance(value, torch.Tensor) else (lambda a, b: a == b)
        assert same(getattr(loaded, name), value), name
    bare = logit_attribution(model, pairs(model), draws=0, positions="each")
    assert LogitAttribution.load(bare.save(tmp_path / "b.safetensors")).null is None
    figure = found.plot()
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["head", "all of it"]
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    assert bare.plot().axes[0].get_ylabel() == "part"
    assert len(logit_attribution(model, pairs(model)).plot().axes[0].patches) == len(bare.names)
    assert found.plot_accumulated().axes[0].get_xlabel() == "before block"
    assert "parts sum to it within" in repr(found)


@pytest.mark.bad_input
def test_errors():
    model = model_of("gpt2")
    prompts, vector = pairs(model), torch.ones(32)
    for options, match in (
        ({"tokens": [5], "direction": vector}, "tokens and direction were given"),
        ({"at": "L1.resid_pre"}, "only a direction= can be read"),
        ({"neurons": 0}, "neurons=0"),
        ({"draws": 1}, "at least 39"),
        ({"draws": 50.5}, "draws=50.5"),
        ({"batch": 0}, "batch=0"),
        ({"batch": "all"}, "batch='all'"),
        ({"direction": [1.0] * 32}, "direction is a list; expected a torch.Tensor"),
        ({"direction": torch.ones(31)}, r"shape \[31\]; expected \[32\]"),
        ({"direction": torch.ones(3, 32)}, "3 directions for 4 prompts"),
        ({"answers": [5, 6, 7, 8]}, "Prompts carry their own"),
    ):
        with pytest.raises(RunError, match=match):
            logit_attribution(model, prompts, **options)
    for options, match in (
        ({"tokens": []}, "expected at least one"),
        ({"tokens": [5, 5]}, "each once"),
        ({"tokens": [500]}, "ids from 0 to 119"),
        ({"tokens": [5.7]}, "whole numbers"),
        ({"positions": []}, r"positions=\[\]; expected names"),
        ({"positions": 1.5}, "positions=1.5; expected names"),
        ({"positions": "nowhere"}, "no position is called 'nowhere'"),
    ):
        with pytest.raises(PromptError, match=match):
            logit_attribution(model, prompts, **options)
    found = logit_attribution(model, prompts, draws=0, positions="each", tokens=[5, 6])
    for call, match in (
        (found.survives, "no control"),
        (found.heads, "by 'component'"),
        (lambda: found.layers("head"), "expected 'attn' or 'mlp'"),
        (lambda: found["L0.attn"], r"nearest: 'L0\.attn_out'"),
        (lambda: found.select(part="embed"), "one part is result"),
        (lambda: found.select(token=7), "no token=7"),
        (found.plot, "token and position do not fit"),
        (found.plot_accumulated, "at most six labels"),
    ):
        with pytest.raises(ResultError, match=match):
            call()
