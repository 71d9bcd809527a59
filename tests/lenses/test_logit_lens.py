"""The logit lens: its last row is the model itself, on every family."""

import pytest
import torch

import interp
from interp.errors import ModelError, PromptError
from interp.lenses.logit_lens import LensResult
from interp.taps.unembed import unembed
from tests import tiny


@pytest.mark.parametrize("family", [*tiny.REGISTRY, *tiny.OWN_ATTENTION])
def test_the_last_row_is_the_models_own_output(family):
    model = interp.load(tiny.shared(family), check=False)
    ids = tiny.tokens()
    result = interp.lens(model, ids, top=3)
    logits = model.run(ids).logits
    assert result.layers[-1] == "out"
    assert torch.equal(result.top_ids[-1], logits.topk(3, dim=-1).indices)
    assert torch.allclose(
        result.top_probs[-1], logits.softmax(-1).topk(3, dim=-1).values, atol=1e-5
    )
    assert float(result.kl[-1].max()) < 1e-6
    assert float(result.kl[0].max()) > 1e-3


def test_rows_are_the_residual_stream_read_through_the_head():
    model = interp.load(tiny.shared("gemma2"), check=False)
    ids = tiny.tokens()
    result = interp.lens(model, ids)
    resid = model.run(ids, save="L1.resid_pre").cache["L1.resid_pre"]
    with torch.no_grad():
        logits = unembed(model.anatomy, resid)
        raw = unembed(model.anatomy, resid, softcap=False)
    probs = logits.softmax(-1)
    assert torch.equal(result.top_ids[1, ..., 0], logits.argmax(-1))
    assert torch.allclose(result.entropy[1], -(probs * probs.log()).sum(-1), atol=1e-5)
    assert torch.allclose(logits, torch.tanh(raw / 30.0) * 30.0)


def test_answers_are_ranked_and_accuracy_is_by_layer():
    model = interp.load(tiny.shared("llama"), check=False)
    ids = tiny.tokens(5, 7)
    logits = model.run(ids, logits="last").logits[:, 0]
    top = logits.argmax(-1)
    result = interp.lens(model, model.prompts(ids, answers=top))
    assert result.accuracy()[-1] == 1.0
    assert result.answer_rank[-1].tolist() == [0] * 5
    assert torch.allclose(result.answer_prob[-1], logits.softmax(-1).max(-1).values, atol=1e-5)
    worst = interp.lens(model, model.prompts(ids, answers=logits.argmin(-1)))
    assert worst.answer_rank[-1].tolist() == [model.d_vocab - 1] * 5


def test_a_head_that_is_not_understood_is_refused():
    hf = tiny.build("llama")
    model = interp.load(hf, check=False)
    forward = hf.forward
    hf.forward = lambda *a, **k: type(out := forward(*a, **k))(logits=out.logits * 2)
    with pytest.raises(ModelError, match="the head of llama is not understood"):
        interp.lens(model, tiny.tokens())


def test_save_frame_plot_and_errors(tmp_path, llama_like_tokenizer):
    hf = tiny.build("llama", vocab_size=len(llama_like_tokenizer))
    model = interp.load(hf, tokenizer=llama_like_tokenizer)
    result = interp.lens(model, ["The capital of France is", "The capital of"])
    loaded = LensResult.load(result.save(tmp_path / "lens.safetensors"))
    assert torch.equal(loaded.top_ids, result.top_ids)
    assert loaded.top_tokens == result.top_tokens
    assert loaded.answer_prob is None
    frame = result.to_frame(1)
    assert len(frame) == 4 * len(model.to_str_tokens("The capital of"))
    assert set(frame["token"]) == set(model.to_str_tokens("The capital of"))
    assert result.plot(1).axes[0].get_title() == "logit lens"
    with pytest.raises(PromptError, match="expected 1 to"):
        interp.lens(model, "The", top=0)
    with pytest.raises(PromptError, match="had no answers"):
        result.accuracy()
