"""Lenses at any site: each row is that tensor through the model's own head, by hand."""

import pytest
import torch

import interp
from interp.errors import ModelError, PromptError, ResultError, RunError, SiteError
from interp.lenses import reading
from interp.lenses.logit_lens import LensResult
from interp.lenses.reading import decode
from interp.taps.unembed import unembed
from tests import tiny
from tests.engine.test_peers import hooked


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.shared("llama"), check=False)


def loaded(family):
    return interp.load(tiny.shared(family), check=False)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "gpt_neox"])
def test_rows_are_the_tensors_through_the_models_head(family):
    model, ids = loaded(family), tiny.tokens()
    sites = ["blocks.1.hook_attn_out", "L*.mlp_out", "L2.H0,3.result"]
    result = interp.lens(model, ids, sites=sites)
    run = model.run(ids, save=["L1.attn_out", "L*.mlp_out", "L2.result"])
    heads = run.cache["L2.result"]
    tensors = [run.cache["L1.attn_out"], *run.cache["L*.mlp_out"], heads[:, :, 0], heads[:, :, 3]]
    assert result.layers == (
        "L1.attn_out", "L0.mlp_out", "L1.mlp_out", "L2.mlp_out", "L2.H0.result", "L2.H3.result",
    )  # fmt: skip
    reference = run.logits.log_softmax(-1)
    for row, tensor in enumerate(tensors):
        log_probs = unembed(model.anatomy, tensor).log_softmax(-1)
        assert torch.equal(result.top_ids[row, ..., 0], log_probs.argmax(-1))
        kl = torch.nn.functional.kl_div(log_probs, reference, log_target=True, reduction="none")
        assert torch.allclose(result.kl[row], kl.sum(-1), atol=2e-5)


def test_every_head_is_a_row_with_or_without_its_number(model):
    named = interp.lens(model, tiny.tokens(), sites="L*.H*.result")
    assert named.layers[:5] == (*(f"L0.H{i}.result" for i in range(4)), "L1.H0.result")
    assert interp.lens(model, tiny.tokens(), sites="L*.result").layers == named.layers


def test_the_stream_in_the_middle_of_a_block(model):
    ids = tiny.tokens()
    result = interp.lens(model, ids, sites=["L*.resid_pre", "L2.resid_mid", "L-1.resid_post"])
    assert result.layers == ("L0", "L1", "L2", "L2.resid_mid", "out")
    default = interp.lens(model, ids)
    assert torch.equal(result.kl[[0, 1, 2, 4]], default.kl)


@pytest.mark.parametrize("family", [*tiny.REGISTRY, *tiny.OWN_ATTENTION])
def test_under_the_final_scale_the_end_is_still_the_model(family):
    model, ids = loaded(family), tiny.tokens()
    end = interp.lens(model, ids, sites=["L-1.resid_post", "L1.mlp_out"], scale="final")
    assert torch.allclose(end.top_probs[0], model.run(ids).logits.softmax(-1).topk(5).values,
                          atol=1e-5)  # fmt: skip
    assert float(end.kl[0].max()) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama", "granite", "olmo", "opt"])
@torch.no_grad()
def test_under_the_final_scale_readings_of_parts_add_up(family):
    model = loaded(family)
    run = model.run(tiny.tokens(), save=["L1.mlp_out", "L1.attn_out", "L-1.resid_post"])
    end = run.cache["L2.resid_post"].flatten(0, 1)
    a, b = (run.cache[f"L1.{name}"].flatten(0, 1) for name in ("mlp_out", "attn_out"))
    both = decode(model, a + b, end=end)
    nothing = decode(model, torch.zeros_like(a), end=end)
    assert torch.allclose(decode(model, a, end=end) + decode(model, b, end=end) - nothing, both,
                          atol=1e-4)  # fmt: skip
    assert not torch.allclose(decode(model, a + b), both, atol=1e-2)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_transformer_lens_reads_alike(family):
    """It reads the stream under each vector's own scale, and components under the final one."""
    hf, ids = tiny.shared(family), tiny.tokens()
    theirs, model = hooked(family, hf), interp.load(hf, check=False)
    _, cache = theirs.run_with_cache(ids)
    norm = theirs.ln_final
    bias = norm.b if hasattr(norm, "b") else 0
    stream = cache.accumulated_resid(layer=-1, incl_mid=False, apply_ln=True)
    parts, names = cache.decompose_resid(mode="mlp", apply_ln=True, return_labels=True)
    parts = parts[[name.endswith("mlp_out") for name in names]] * norm.w + bias
    for sites, scale, vectors in ((None, "own", stream), ("L*.mlp_out", "final", parts)):
        probs = (vectors @ theirs.W_U).softmax(-1)
        ours = interp.lens(model, ids, sites=sites, scale=scale, top=tiny.VOCAB)
        got = torch.zeros_like(probs).scatter_(-1, ours.top_ids, ours.top_probs)
        assert torch.allclose(got, probs, atol=1e-5)


def test_small_slabs_and_few_rows_at_a_time_change_nothing(model, monkeypatch):
    prompts = model.prompts(tiny.tokens(5, 7), answers=tiny.tokens(5, 1, seed=3)[:, 0])
    whole = interp.lens(model, prompts, sites=["L*.resid_pre", "L1.H*.result"])
    widest = []
    inner = reading.unembed
    monkeypatch.setattr(reading, "_SLAB", 3 * 4 * model.d_vocab)  # three tokens
    monkeypatch.setattr(reading, "_SAVED", 1)
    monkeypatch.setattr(reading, "unembed",
                        lambda a, x, **k: (widest.append(len(x)), inner(a, x, **k))[1])  # fmt: skip
    cut = interp.lens(model, prompts, sites=["L*.resid_pre", "L1.H*.result"])
    assert max(widest) <= 3
    assert torch.equal(cut.top_ids, whole.top_ids)
    assert torch.equal(cut.answer_rank, whole.answer_rank)
    for name in ("top_probs", "entropy", "kl", "answer_prob"):
        assert torch.allclose(getattr(cut, name), getattr(whole, name), atol=1e-5)


def test_padding_is_nan_and_changes_nothing(model):
    ids = tiny.tokens(1, 6)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1)
    mask = torch.tensor([[False] * 3 + [True] * 6])
    plain = interp.lens(model, ids)
    result = interp.lens(model, interp.TokenBatch(padded, mask))
    assert bool(result.kl[..., :3].isnan().all())
    assert torch.allclose(result.kl[..., 3:], plain.kl, atol=1e-4)
    a, b = result.scores("all")["entropy"], plain.scores("all")["entropy"]
    assert torch.allclose(a, b, atol=1e-4)


def test_numbers_by_layer_and_their_intervals(model):
    ids = tiny.tokens(6, 5)
    top = model.run(ids, logits="last").logits[:, 0].argmax(-1)
    result = interp.lens(model, model.prompts(ids, answers=top))
    scores = result.scores()
    assert list(scores) == ["probability", "rank", "kl", "entropy"]
    assert scores["rank"][-1].tolist() == [1.0] * 6
    assert torch.equal(scores["kl"], result.kl[:, :, -1])
    spans = result.intervals()
    assert torch.allclose(spans["rank"].mean, scores["rank"].log().mean(-1).exp())
    assert bool((spans["kl"].low[:-1] < spans["kl"].high[:-1]).all())
    frame = result.trajectory()
    assert list(frame["layer"]) == list(result.layers)
    assert {"rank", "rank_low", "rank_high"} <= set(frame.columns)
    one = result.trajectory(2)
    assert list(one["top"]) == [row[2][-1] for row in result.top_tokens]
    assert one["rank"].iloc[-1] == 1.0
    assert list(result.scores("all")) == ["kl", "entropy"]


def test_figures_of_layers(model):
    prompts = model.prompts(tiny.tokens(4, 5), answers=tiny.tokens(4, 1, seed=3)[:, 0])
    a = interp.lens(model, prompts)
    b = interp.lens(model, prompts, sites="L*.mlp_out")
    figure = a.plot_layers(b, labels=["stream", "MLPs"], title="two")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1] == "rank of the answer (1 is the top)"
    assert figure.axes[1].get_yscale() == "log"
    lines = figure.axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [4, 3]
    assert len(a.plot_layers(where="all").axes) == 2
    heads = interp.lens(model, prompts, sites="L*.H*.result")
    assert heads.plot_layers().get_suptitle() == "logit lens of result, 4 prompts"
    with pytest.raises(ResultError, match="expected one label for each, all different"):
        a.plot_layers(b, labels=["one"])
    with pytest.raises(ResultError, match="have no common axis"):
        a.plot_layers(heads, labels=["a", "b"])


def test_a_long_prompt_is_broken_into_lines_and_stays_on_a_page(model):
    result = interp.lens(model, tiny.tokens(1, 60))
    figure = result.plot(title="long")
    assert figure.get_figwidth() <= 5.6
    assert figure.get_figheight() <= 9
    assert "of 60 tokens)" in figure.axes[0].get_title().replace("\n", " ")
    some = result.plot(positions=[0, -2, -1], colour="kl")
    assert [t.get_text() for t in some.axes[0].get_xticklabels()] == [
        result.tokens[0][i] for i in (0, 58, 59)
    ]
    with pytest.raises(PromptError, match="position 60 of a prompt of 60 tokens"):
        result.plot(positions=[60])
    many = interp.lens(model, tiny.tokens(1, 3), sites=["L*.H*.result"])
    tall = LensResult(**{
        **vars(many), "layers": many.layers * 8,
        **{n: torch.cat([getattr(many, n)] * 8) for n in ("top_ids", "top_probs", "kl", "entropy")},
        "top_tokens": many.top_tokens * 8,
    })  # fmt: skip
    with pytest.raises(ResultError, match="96 rows of a lens do not fit on a page"):
        tall.plot()


def test_old_files_load(model, tmp_path):
    result = interp.lens(model, tiny.tokens())
    path = result.save(tmp_path / "lens.safetensors")
    tensors, meta = interp.results.read_file(path, "LensResult")
    del meta["method"]
    interp.results.write_file(path, "LensResult", tensors, meta)
    assert LensResult.load(path).method == "logit lens"


def test_what_is_refused(model):
    ids = tiny.tokens()
    with pytest.raises(SiteError, match=r"'L1.z' has axes .* a lens reads vectors of d_model"):
        interp.lens(model, ids, sites="L1.z")
    with pytest.raises(SiteError, match="is one position; a lens reads every one"):
        interp.lens(model, ids, sites="L*.mlp_out@-1")
    with pytest.raises(SiteError, match="no sites were given"):
        interp.lens(model, ids, sites=[])


def test_a_head_that_is_not_understood_is_refused_at_any_site():
    hf = tiny.build("llama")
    model, forward = interp.load(hf, check=False), hf.forward
    hf.forward = lambda *a, **k: type(out := forward(*a, **k))(logits=out.logits + 1)
    with pytest.raises(ModelError, match="is not understood"):
        interp.lens(model, tiny.tokens(), sites="L0.mlp_out")


@pytest.mark.bad_input
def test_other_words_are_refused(model):
    with pytest.raises(RunError, match="scale='frozen'; expected 'own' or 'final'"):
        interp.lens(model, tiny.tokens(), scale="frozen")
    with pytest.raises(RunError, match="using='tuned'; expected a TunedLens"):
        interp.lens(model, tiny.tokens(), using="tuned")
    found = interp.lens(model, tiny.tokens())
    for read in (found.to_frame, found.trajectory, found.plot):
        with pytest.raises(PromptError, match="prompt 5 of 2; expected -2 to 1"):
            read(5)
    with pytest.raises(PromptError, match="colour='rank'; expected 'prob', 'entropy' or 'kl'"):
        found.plot(colour="rank")
    with pytest.raises(PromptError, match="where='first'"):
        interp.lens(model, tiny.tokens()).scores("first")
